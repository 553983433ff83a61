package rabbit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// Management is what the broker's management API shows, and AMQP does not.
type Management struct {
	// Ahead is by how much the broker's clock is ahead of this host's, to about a second.
	Ahead time.Duration
	// Lacks are the policies, and arguments of queues, by which tasks would get lost.
	Lacks []Lack
	// AckTimeout is the shortest acknowledgement timeout that a policy sets for a queue of tasks; 0 where none does for one of them, so that the broker's own holds
	// there, which the API does not show.
	AckTimeout time.Duration
}

const (
	// pageSize is how many queues are asked for at once, the most that the API gives.
	pageSize = 500
	// answerMost bounds an answer, in bytes: a page of queues has some 200 KiB.
	answerMost = 16 << 20
)

// Management asks the management API at base, as http://broker:15672, for what it shows of the queues by which a host of that name gets tasks of the client's pools, has them
// wait, and buries them. Where base names no user, it is the one of the AMQP URL. The user needs the tag management. No error holds a password.
func (c *Client) Management(ctx context.Context, base, host string) (*Management, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("cannot read the URL of RabbitMQ's management: it is http://host:15672 or https://..., and a password in it must be percent-encoded")
	}
	d := c.receive.dialer
	e := d.endpoints[0]
	user := u.User
	if user == nil {
		if own, err := url.Parse(e.url); err == nil {
			user = own.User
		}
	}
	transport := &http.Transport{TLSClientConfig: d.tls.Clone(), DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}
	u = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	m := &Management{}
	wanted := map[string]bool{}
	for _, pool := range c.pools {
		for _, band := range queue.Bands {
			wanted[poolQueue(pool, band)] = true
		}
	}
	names := `^mayfly\.(pool\.|wait\.|dead$|host\.` + regexp.QuoteMeta(host) + `\.tasks$)`
	look := examination{vhost: e.vhost}
	timeouts := map[string]time.Duration{}
	pages := 1
	for page := 1; page <= pages; page++ {
		var list struct {
			Items []managed `json:"items"`
			Pages int       `json:"page_count"`
		}
		at := u.JoinPath("api/queues", url.PathEscape(e.vhost))
		at.RawQuery = url.Values{"page": {fmt.Sprint(page)}, "page_size": {fmt.Sprint(pageSize)}, "use_regex": {"true"}, "name": {names},
			"columns": {"name,arguments,policy,operator_policy,effective_policy_definition"}}.Encode()
		if m.Ahead, err = ask(ctx, transport, at, user, &list); err != nil {
			return nil, err
		}
		pages = list.Pages
		for _, q := range list.Items {
			switch policy := q.policy(); {
			case wanted[q.Name]:
				look.keeps(&q)
				if policy.AckTimeout != nil {
					timeouts[q.Name] = milliseconds(*policy.AckTimeout)
				}
			case q.Name == dead:
				look.keeps(&q)
			case !strings.HasPrefix(q.Name, poolPrefix):
				look.passes(&q)
			}
		}
	}
	m.Lacks = look.lacks()
	if len(timeouts) == len(wanted) && len(wanted) > 0 {
		m.AckTimeout = slices.Min(slices.Collect(maps.Values(timeouts)))
	}
	return m, nil
}

// ask gets an answer as JSON, and returns by how much the clock of who gave it is ahead.
func ask(ctx context.Context, transport http.RoundTripper, at *url.URL, user *url.Userinfo, answer any) (ahead time.Duration, err error) {
	const what = "cannot ask RabbitMQ's management at %s: %w"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return 0, fmt.Errorf(what, at.Host, err)
	}
	if user != nil {
		password, _ := user.Password()
		r.SetBasicAuth(user.Username(), password)
	}
	asked := time.Now()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, fmt.Errorf(what, at.Host, err)
	}
	defer resp.Body.Close()
	answered := time.Now()
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return 0, fmt.Errorf(what, at.Host, fmt.Errorf("it refuses the user %q: wrong password, or no tag (rabbitmqctl set_user_tags %[1]s management)", user.Username()))
	case resp.StatusCode != http.StatusOK:
		return 0, fmt.Errorf(what, at.Host, fmt.Errorf("it answers %s", resp.Status))
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerMost)).Decode(answer); err != nil {
		return 0, fmt.Errorf(what, at.Host, fmt.Errorf("its answer is not that of RabbitMQ: %w", err))
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The date is cut to the second, so half of one is added; what there is between the question and the answer is halved.
		ahead = date.Add(500 * time.Millisecond).Sub(asked.Add(answered.Sub(asked) / 2))
	}
	return ahead, nil
}
