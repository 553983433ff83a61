package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/mayfly/mayfly/manager"
)

// List lists the active tasks that match a filter.
func (c *Client) List(ctx context.Context, filter url.Values) (list []manager.View, err error) {
	err = c.ask(ctx, http.MethodGet, "/v1/tasks", filter, nil, &list)
	return list, err
}

// Ended lists so many ended tasks that match a filter, newest first, however far back they are.
func (c *Client) Ended(ctx context.Context, n int, filter url.Values) ([]manager.View, error) {
	list := []manager.View{}
	query := url.Values{}
	for k, v := range filter {
		query[k] = v
	}
	query.Set("status", string(manager.Ended))
	for query != nil && len(list) < n {
		query.Set("limit", strconv.Itoa(min(n-len(list), pageMost)))
		page, next, err := c.page(ctx, query)
		if err != nil {
			return nil, err
		}
		list, query = append(list, page...), next
	}
	return list, nil
}

// page asks for a page of a list, and says how to ask for the next one; nil where there is none.
func (c *Client) page(ctx context.Context, query url.Values) (page []manager.View, next url.Values, err error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/tasks", query, nil)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return nil, nil, c.explain(err)
	}
	link, _, found := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "</v1/tasks?"), ">; ")
	if !found {
		return page, nil, nil
	}
	if next, err = url.ParseQuery(link); err != nil {
		return nil, nil, fmt.Errorf("cannot find the next page: %w", err)
	}
	return page, next, nil
}

// justPages bounds how many pages are looked through for what has just ended.
const justPages = 20

// JustEnded tells the ids of the tasks that have ended since it was asked last, newest first, and a mark for the next time: without one, of the newest.
func (c *Client) JustEnded(ctx context.Context, mark string) (ids []string, next string, err error) {
	query := url.Values{"status": {string(manager.Ended)}, "brief": {"1"}, "limit": {strconv.Itoa(pageMost)}}
	pages := justPages
	if mark == "" {
		pages = 1
	}
	for ; query != nil && pages > 0; pages-- {
		var page []manager.View
		if page, query, err = c.page(ctx, query); err != nil {
			return nil, mark, err
		}
		for i := range page {
			v := &page[i]
			this := v.ID + " " + v.QueuedAt.String()
			if next == "" {
				next = this
			}
			if this == mark {
				return ids, next, nil
			}
			ids = append(ids, v.ID)
		}
	}
	if next == "" {
		next = mark
	}
	return ids, next, nil
}
