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
	dial := func() (net.Conn, *bufio.Reader) { return dialDoor(t, d) }
	early, earlyAnswers := dial()
	if status := requestBy(early, earlyAnswers, "/v1/info", testToken); status != 200 {
		t.Fatalf("with a token: %d", status)
	}
	// What needs no token is answered, and that is it.
	anybody, answers := dial()
	if status := requestBy(anybody, answers, "/", ""); status != 200 {
		t.Errorf("without a token: %d", status)
	}
	if _, err := answers.ReadByte(); err != io.EOF {
		t.Errorf("after an answer without a token: %v, want the end", err)
	}
	for range connectionsMax + 100 {
		dial() // and say nothing
	}
	late, lateAnswers := dial()
	if status := requestBy(late, lateAnswers, "/v1/info", testToken); status != 200 {
		t.Errorf("with a token, behind many others: %d", status)
	}
	if status := requestBy(early, earlyAnswers, "/v1/info", testToken); status != 200 {
		t.Errorf("with a token, before many others: %d", status)
	}
	// Those with a token have no more than their share either, and make way for nobody.
	stays := 0
	for range connectionsEach + 10 {
		conn, answers := dial()
		if requestBy(conn, answers, "/v1/info", testToken) == 200 {
			stays++
		}
	}
	if stays != connectionsEach-2 {
		t.Errorf("%d more connections with a token, want %d", stays, connectionsEach-2)
	}
	if status := requestBy(early, earlyAnswers, "/v1/info", testToken); status != 200 {
		t.Errorf("the first one: %d", status)
	}
}

func dialDoor(t *testing.T, d *Door) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn, bufio.NewReader(conn)
}

// requestBy asks for something by a connection that is there; 0 means that it is no more.
func requestBy(conn net.Conn, r *bufio.Reader, path, token string) (status int) {
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", path, token)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// TestStrangers has somebody ask without a token until nothing is answered to the address any more: who has shown one by a connection goes on with it.
func TestStrangers(t *testing.T) {
	t.Parallel()
	d := open(t, Remote{TokenFile: tokenFile(t, testToken, 0o600)})
	known, answers := dialDoor(t, d)
	strangers := caller{address: addressOf(known.LocalAddr().String())}
	friends := caller{strangers.address, true}
	usedUp := func(c caller) {
		for range 10 { // for half a minute
			d.limiter(c).ReserveN(time.Now(), requestBurst)
		}
	}
	if status := requestBy(known, answers, "/v1/info", testToken); status != 200 {
		t.Fatalf("with a token: %d", status)
	}
	usedUp(strangers)
	for range 5 {
		if status := requestBy(known, answers, "/v1/info", testToken); status != 200 {
			t.Errorf("with a token, by the same connection: %d", status)
		}
	}
	late, lateAnswers := dialDoor(t, d)
	if status := requestBy(late, lateAnswers, "/v1/info", testToken); status != http.StatusTooManyRequests {
		t.Errorf("by a new connection: %d, but nobody is told which tokens are right", status)
	}
	// Those who are known have a bound of their own, and keep their connections.
	usedUp(friends)
	if status := requestBy(known, answers, "/v1/info", testToken); status != http.StatusTooManyRequests {
		t.Errorf("with a token, too often: %d", status)
	}
	d.mu.Lock()
	clear(d.limiters) // as after some seconds
	d.mu.Unlock()
	if status := requestBy(known, answers, "/v1/info", testToken); status != 200 {
		t.Errorf("with a token, later: %d", status)
	}
	// A guess is a stranger's, whoever made it.
	if status := requestBy(known, answers, "/v1/info", "wrong-wrong-wrong-wrong"); status != 401 {
		t.Errorf("with a wrong token: %d", status)
	}
	if status := requestBy(known, answers, "/v1/info", testToken); status != 0 {
		t.Errorf("after a wrong token: %d, want the end", status)
	}
	d.mu.Lock()
	billed := d.limiters[strangers] != nil
	d.mu.Unlock()
	if !billed {
		t.Error("a wrong token cost nothing")
	}
}
