package integration

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/queue"
)

// A host with keys takes the tasks that were signed with one of them, however they come, and no others; those are kept.
func TestSignedTasks(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"openssl", "amqp-publish"} {
		if _, err := exec.LookPath(tool); err != nil {
			need.Missing(t, "no signed task can be sent from a shell: %v", err)
		}
	}
	url := broker.Shared(t, broker.V43).Vhost(t)
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, kind string, der []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	write(filepath.Join(keys, "bob.pem"), "PUBLIC KEY", der, err)
	// The queues are made by a manager: the first one finds one key, the next one both.
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_TASK_KEYS="+keys)
	h.start()
	h.connected()
	p := newProducer(t, url)
	p.publish("default", `{"id": "unsigned", "command": ["true"]}`)
	if r := p.wait("unsigned"); r.State != queue.Rejected || r.Message != "task-signature: missing; this host takes signed tasks only" {
		t.Errorf("unsigned: %+v", r)
	}
	h.expect(0, "task-signature: missing; this host takes signed tasks only", "", "dead", "list")
	if _, errs, code := h.mayfly("", "submit", "--", "true"); code == 0 || !strings.Contains(errs, "MAYFLY_SIGNING_KEY") {
		t.Errorf("submitted without a key: %d, %s", code, errs)
	}

	c, err := mayfly.Dial(t.Context(), url, mayfly.WithSigning("bob", private))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	handle, err := c.Submit(t.Context(), mayfly.Task{ID: "bobs", Command: []string{"false"}, MaxAttempts: 2, Backoff: new(time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := handle.Wait(t.Context()); err != nil || r.State != "failed" || r.Attempt != 2 { // its copy is signed, too
		t.Errorf("bob's: %+v, %v", r, err)
	}

	script, err := filepath.Abs("../clients/shell/sign.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "AMQP_URL="+url, `task={"id": "alices", "command": ["true"]}`)
	h.stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	der, err = x509.MarshalPKCS8PrivateKey(private)
	write(filepath.Join(dir, "bob.pem"), "PRIVATE KEY", der, err)
	h.env = append(h.env, "MAYFLY_SIGNING_KEY="+filepath.Join(dir, "bob.pem"))
	h.start()
	if r := p.wait("alices"); r.State != queue.Succeeded {
		t.Errorf("alice's: %+v", r)
	}
	h.expect(0, "signed here", "", "submit", "--wait", "--", "echo", "signed here")
}
