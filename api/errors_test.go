package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// raw sends bytes and nothing more, and returns the answer.
func raw(t *testing.T, server *httptest.Server, text string) (int, failure) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(resp.Body).Decode(&f); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, f
}

// TestClientsFaults holds that what a client does wrong is answered as his fault, with a sentence, whether or not he may still be there.
func TestClientsFaults(t *testing.T) {
	t.Parallel()
	server := serve(t, &stub{submit: func(ctx context.Context, body []byte) (string, error) {
		if len(body) > queue.MaxBody {
			t.Errorf("%d bytes are looked at", len(body))
		}
		<-ctx.Done() // the queue takes its time
		return "", ctx.Err()
	}, cemetery: graveyard{}})
	const post = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\n"
	for what, x := range map[string]struct {
		sent   string
		status int
		says   string
	}{
		"half a body":      {post + "Content-Length: 100\r\n\r\n{\"command\":", 400, "cannot read the body: unexpected EOF"},
		"a bad chunk":      {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400, "cannot read the body: "},
		"half closed":      {post + "Content-Length: 2\r\n\r\n{}", 503, "cannot go on: the client has closed its side"},
		"too many ended":   {"GET /v1/tasks?ended=10001 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "cannot use ended=10001: it is 10000 at most; status=ended&limit=1000 shows them all, a page at a time"},
		"half of a number": {"GET /v1/dead?limit=-1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, `cannot use limit="-1": it is a number of 0 or more`},
	} {
		if status, f := raw(t, server, x.sent); status != x.status || !strings.Contains(f.Error, x.says) {
			t.Errorf("%s: %d %s", what, status, f.Error)
		}
	}
	status, f := ask(t, server, http.MethodPost, "/v1/tasks", strings.Repeat("x", queue.MaxBody+2))
	if want := "body: has more than 16777216 bytes (16MiB), the most that are accepted, so send a reference to large data"; status != 413 || f.Error != want || f.Field != "body" {
		t.Errorf("too large: %d %+v", status, f)
	}
	for _, name := range []string{"tail", "offset", "attempt"} {
		if status, f := ask(t, server, http.MethodGet, "/v1/tasks/x/logs?"+name+"=-1", ""); status != 400 || !strings.HasPrefix(f.Error, "cannot use "+name+`="-1"`) {
			t.Errorf("%s: %d %s", name, status, f.Error)
		}
	}
}

// TestLeaving submits a task to a host that is about to leave.
func TestLeaving(t *testing.T) {
	t.Parallel()
	server := serve(t, &stub{submit: func(context.Context, []byte) (string, error) { return "", manager.ErrLeaving }})
	if status, f := ask(t, server, http.MethodPost, "/v1/tasks", "{}"); status != 503 || f.Error != manager.ErrLeaving.Error() {
		t.Errorf("%d %+v", status, f)
	}
}

// graveyard has two dead letters of the task "two", one of "one". As the queues do, it knows them by what is theirs alone.
type graveyard struct{}

func (graveyard) Dead(context.Context, int) ([]queue.DeadLetter, error) { return nil, nil }

func (g graveyard) DeadLetter(ctx context.Context, key string) (queue.DeadLetter, error) {
	return queue.DeadLetter{Key: key}, g.Requeue(ctx, key)
}

func (graveyard) Requeue(_ context.Context, key string) error {
	switch key {
	case "two":
		return &queue.AmbiguousError{TaskID: "two", Keys: []string{"two/1", "two/3"}}
	case "one", "two/1", "two/3":
		return nil
	}
	return queue.ErrNoDeadLetter
}

func (g graveyard) Drop(ctx context.Context, key string) error { return g.Requeue(ctx, key) }

// TestSeveralDead holds that a task's id names no dead letter where several have it, and that they are named.
func TestSeveralDead(t *testing.T) {
	t.Parallel()
	server := serve(t, &stub{cemetery: graveyard{}})
	for _, route := range []string{"GET /v1/dead/", "DELETE /v1/dead/", "POST /v1/dead/ /requeue"} {
		method, path, _ := strings.Cut(route, " ")
		path, rest, _ := strings.Cut(path, " ")
		for key, want := range map[string]int{"two": 409, "one": 200, "two%2F3": 200, "none": 404} {
			status, f := ask(t, server, method, path+key+rest, "")
			if status != want || want == 409 && !strings.HasSuffix(f.Error, "2 are of the task two; name one by its key: two/1, two/3") {
				t.Errorf("%s %s: %d %s", method, key, status, f.Error)
			}
		}
	}
}
