package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestShare has one address open connections until it may have no more, without a token: whoever has one gets in all the same, and stays.
func TestShare(t *testing.T) {
	t.Parallel()
	d := open(t, Remote{TokenFile: tokenFile(t, testToken, 0o600)})
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", d.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		return conn, bufio.NewReader(conn)
	}
	request := func(conn net.Conn, r *bufio.Reader, path, token string) (status int) {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", path, token)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	early, earlyAnswers := dial()
	if status := request(early, earlyAnswers, "/v1/info", testToken); status != 200 {
		t.Fatalf("with a token: %d", status)
	}
	// What needs no token is answered, and that is it.
	anybody, answers := dial()
	if status := request(anybody, answers, "/", ""); status != 200 {
		t.Errorf("without a token: %d", status)
	}
	if _, err := answers.ReadByte(); err != io.EOF {
		t.Errorf("after an answer without a token: %v, want the end", err)
	}
	for range connectionsMax + 100 {
		dial() // and say nothing
	}
	late, lateAnswers := dial()
	if status := request(late, lateAnswers, "/v1/info", testToken); status != 200 {
		t.Errorf("with a token, behind many others: %d", status)
	}
	if status := request(early, earlyAnswers, "/v1/info", testToken); status != 200 {
		t.Errorf("with a token, before many others: %d", status)
	}
	// Those with a token have no more than their share either, and make way for nobody.
	stays := 0
	for range connectionsEach + 10 {
		conn, answers := dial()
		if request(conn, answers, "/v1/info", testToken) == 200 {
			stays++
		}
	}
	if stays != connectionsEach-2 {
		t.Errorf("%d more connections with a token, want %d", stays, connectionsEach-2)
	}
	if status := request(early, earlyAnswers, "/v1/info", testToken); status != 200 {
		t.Errorf("the first one: %d", status)
	}
}
