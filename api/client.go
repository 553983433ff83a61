package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// socketBase is what paths are put to where requests go through a socket.
const socketBase = "http://mayfly"

// rootSocket is where a manager of root listens; tests have another one.
var rootSocket = "/run/mayfly/mayfly.sock"

// Client is a manager's client.
type Client struct {
	// where is the socket's path, or the URL; base is what paths are put to.
	where, base string
	token       string
	http        *http.Client
	// broken says why nothing can be asked.
	broken error
}

// Dial returns the client of the manager that listens on the socket. It connects with the first request.
func Dial(path string) *Client {
	return &Client{where: path, base: socketBase, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}}
}

// DialURL returns the client of the manager that is had by TCP at a URL, as https://host:7070, with the first token of a file, if one is named.
func DialURL(address, tokenFile string) *Client {
	c := &Client{where: address, base: strings.TrimRight(address, "/"), http: &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}}
	if u, err := url.Parse(address); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		c.broken = fmt.Errorf("cannot use MAYFLY_URL=%s: it is http://host:port or https://host:port", address)
	}
	if tokenFile == "" {
		return c
	}
	text, err := os.ReadFile(tokenFile)
	if err != nil {
		c.broken = fmt.Errorf("cannot read MAYFLY_TOKEN_FILE: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && c.token == "" {
			c.token = line
		}
	}
	return c
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is the manager's refusal of a request.
type Error struct {
	Status int
	Field  string
	Text   string
}

func (e *Error) Error() string { return e.Text }

// do sends a request. The caller closes the answer's body.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path+"?"+query.Encode(), body)
	if err != nil {
		return nil, fmt.Errorf("cannot make a request: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var f failure
	if json.Unmarshal(text, &f) != nil || f.Error == "" {
		f.Error = fmt.Sprintf("the manager answered %s", resp.Status)
	}
	return nil, &Error{Status: resp.StatusCode, Field: f.Field, Text: f.Error}
}

// taskPath and deadPath make the path of one task and one dead letter, whatever its name holds.
func taskPath(id, rest string) string  { return "/v1/tasks/" + url.PathEscape(id) + rest }
func deadPath(key, rest string) string { return "/v1/dead/" + url.PathEscape(key) + rest }

// gone says that there is no manager (any more).
type gone struct{ sentence string }

func (g *gone) Error() string { return g.sentence }

// explain says in one sentence why the manager was not reached.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		remedy := "start it with \"mayfly run\", or name its socket with --socket"
		if _, err := os.Stat(rootSocket); err == nil && c.base == socketBase && c.where != rootSocket {
			remedy = "that of root is: run this as root, or in the group that may, with --socket " + rootSocket
		}
		return &gone{fmt.Sprintf("cannot reach the manager at %s: it is not running (%s)", c.where, remedy)}
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("cannot reach the manager at %s: permission denied (run as its user, or as root)", c.where)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return &gone{fmt.Sprintf("cannot go on: the manager at %s ended meanwhile", c.where)}
	}
	return fmt.Errorf("cannot reach the manager at %s: %w", c.where, err)
}

// ask sends a request and reads the answer into result.
func (c *Client) ask(ctx context.Context, method, path string, query url.Values, body io.Reader, result any) error {
	resp, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(result); err != nil {
		return c.explain(err)
	}
	return nil
}

// Submit submits one task document; pool may be empty.
func (c *Client) Submit(ctx context.Context, document []byte, pool string) (id string, err error) {
	var s Submitted
	err = c.ask(ctx, http.MethodPost, "/v1/tasks", poolQuery(pool), bytes.NewReader(document), &s)
	return s.ID, err
}

func poolQuery(pool string) url.Values {
	if pool == "" {
		return nil
	}
	return url.Values{"pool": {pool}}
}

// Batch submits a document a line and calls each with every answer, in order, until it returns false.
func (c *Client) Batch(ctx context.Context, lines io.Reader, pool string, each func(Submitted) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(ctx, http.MethodPost, "/v1/tasks:batch", poolQuery(pool), io.NopCloser(lines))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answers := json.NewDecoder(resp.Body)
	for {
		var s Submitted
		if err := answers.Decode(&s); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return c.explain(err)
		}
		if !each(s) {
			return nil
		}
	}
}

// Show returns one task.
func (c *Client) Show(ctx context.Context, id string) (v manager.View, err error) {
	err = c.ask(ctx, http.MethodGet, taskPath(id, ""), nil, nil, &v)
	return v, err
}

// Wait returns one task once it has ended.
func (c *Client) Wait(ctx context.Context, id string) (v manager.View, err error) {
	err = c.ask(ctx, http.MethodGet, taskPath(id, "/wait"), nil, nil, &v)
	return v, err
}

// Explain says why a task is where it is.
func (c *Client) Explain(ctx context.Context, id string) (x manager.Explanation, err error) {
	err = c.ask(ctx, http.MethodGet, taskPath(id, "/explain"), nil, nil, &x)
	return x, err
}

// LogOptions say which output is wanted.
type LogOptions struct {
	// Stream is stdout (also when empty) or stderr.
	Stream string
	// Attempt is the number of the attempt, 0 for the latest.
	Attempt int
	Follow  bool
	// Tail is the number of bytes from the end, -1 for all.
	Tail int
}

// Logs copies a task's output to w.
func (c *Client) Logs(ctx context.Context, id string, o LogOptions, w io.Writer) error {
	query := url.Values{"stream": {o.Stream}, "attempt": {strconv.Itoa(o.Attempt)}}
	if o.Follow {
		query.Set("follow", "1")
	}
	if o.Tail >= 0 {
		query.Set("tail", strconv.Itoa(o.Tail))
	}
	resp, err := c.do(ctx, http.MethodGet, taskPath(id, "/logs"), query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	to := &target{w: w}
	if _, err = io.Copy(to, resp.Body); err != nil && to.err == nil {
		return c.explain(err)
	}
	return to.err
}

// target tells whether it was the target that failed, or the source.
type target struct {
	w   io.Writer
	err error
}

func (t *target) Write(b []byte) (n int, err error) {
	n, err = t.w.Write(b)
	t.err = err
	return n, err
}

// said asks for something to be done and returns what the manager said of it.
func (c *Client) said(ctx context.Context, method, path string) (string, error) {
	var answer struct {
		Said string `json:"said"`
	}
	err := c.ask(ctx, method, path, nil, nil, &answer)
	return answer.Said, err
}

// Cancel cancels a task and returns what was done.
func (c *Client) Cancel(ctx context.Context, id string) (string, error) {
	return c.said(ctx, http.MethodPost, taskPath(id, "/cancel"))
}

// Drain has the manager drain and end. Its running tasks have so long; 0: the host's MAYFLY_DRAIN_TIMEOUT.
func (c *Client) Drain(ctx context.Context, timeout time.Duration) error {
	var query url.Values
	if timeout > 0 {
		query = url.Values{"timeout": {timeout.String()}}
	}
	return c.ask(ctx, http.MethodPost, "/v1/drain", query, nil, new(map[string]string))
}

// Info describes the host.
func (c *Client) Info(ctx context.Context) (info manager.Info, err error) {
	err = c.ask(ctx, http.MethodGet, "/v1/info", nil, nil, &info)
	return info, err
}

// Demand says how much work there is and how much room.
func (c *Client) Demand(ctx context.Context) (d manager.Demand, err error) {
	err = c.ask(ctx, http.MethodGet, "/v1/demand", nil, nil, &d)
	return d, err
}

// GPUs shows the host's GPUs.
func (c *Client) GPUs(ctx context.Context) (overview gpu.Overview, err error) {
	err = c.ask(ctx, http.MethodGet, "/v1/gpus", nil, nil, &overview)
	return overview, err
}

// Dead lists dead letters, without their bodies.
func (c *Client) Dead(ctx context.Context, limit int) (list []queue.DeadLetter, err error) {
	err = c.ask(ctx, http.MethodGet, "/v1/dead", url.Values{"limit": {strconv.Itoa(limit)}}, nil, &list)
	return list, err
}

// DeadLetter returns one dead letter with its body.
func (c *Client) DeadLetter(ctx context.Context, key string) (d queue.DeadLetter, err error) {
	err = c.ask(ctx, http.MethodGet, deadPath(key, ""), nil, nil, &d)
	return d, err
}

// Requeue puts a dead letter back into its pool.
func (c *Client) Requeue(ctx context.Context, key string) error {
	_, err := c.said(ctx, http.MethodPost, deadPath(key, "/requeue"))
	return err
}

// Drop removes a dead letter for good.
func (c *Client) Drop(ctx context.Context, key string) error {
	_, err := c.said(ctx, http.MethodDelete, deadPath(key, ""))
	return err
}
