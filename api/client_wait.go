package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mayfly/mayfly/internal/pause"
	"github.com/mayfly/mayfly/manager"
)

// Begun returns when an attempt of a task has begun, or with an error where it does not: it is not known, or not here, or there is none.
func (c *Client) Begun(ctx context.Context, id string, attempt int) error {
	resp, err := c.do(ctx, http.MethodGet, taskPath(id, "/logs"), url.Values{"attempt": {strconv.Itoa(attempt)}, "follow": {"1"}, "tail": {"0"}}, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Events calls each with the active tasks at every change, until it returns false or ctx ends.
func (c *Client) Events(ctx context.Context, each func([]manager.View) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(ctx, http.MethodGet, "/v1/events", nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return c.explain(err)
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		var views []manager.View
		if err := json.Unmarshal(data, &views); err != nil {
			return fmt.Errorf("cannot read an event: %w", err)
		}
		if !each(views) {
			return nil
		}
	}
}

// goneLook is how long it is left alone whoever does not say whether he ends.
const goneLook = time.Second

// UntilGone returns when the manager has ended. A stream that breaks off does not say that it has: it may be the way to it that is broken.
func (c *Client) UntilGone(ctx context.Context) error {
	var began *time.Time
	for {
		info, err := c.Info(ctx)
		var refused *Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && began != nil && !info.StartedAt.Equal(*began): // the next one is there already
			return nil
		case err == nil && began == nil:
			began = &info.StartedAt
		case err == nil: // the stream broke off
			_ = pause.For(ctx, goneLook)
		case errors.As(err, new(*gone)):
			return nil
		case errors.As(err, &refused) && (refused.Status == http.StatusBadGateway || refused.Status == http.StatusServiceUnavailable): // it ends, or a proxy finds nobody
			return nil
		case errors.As(err, &refused) && refused.Status == http.StatusTooManyRequests:
			_ = pause.For(ctx, goneLook)
			continue
		default:
			return fmt.Errorf("cannot tell whether the manager has ended: %w", err)
		}
		if resp, err := c.do(ctx, http.MethodGet, "/v1/events", url.Values{"topics": {topicHost}}, nil); err == nil { // it lasts as long as the manager does
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
}
