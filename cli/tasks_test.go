package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// listing answers as a manager with one active and one ended task of each label, and notes what it was asked.
func listing(asked *[]string) http.Handler {
	mux := http.NewServeMux()
	active := []manager.View{{ID: "active-a", Status: manager.Running, Labels: map[string]string{"zone": "a"}}, {ID: "active-b", Status: manager.Waiting, Labels: map[string]string{"zone": "b"}}}
	mux.HandleFunc("GET /v1/tasks", func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.Query().Encode())
		list := active
		if r.URL.Query().Get("status") == string(manager.Ended) {
			list = []manager.View{{ID: "ended", Status: manager.Ended, Result: &queue.Result{State: queue.Failed}}}
		}
		_ = json.NewEncoder(w).Encode(list)
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, _ *http.Request) {
		text, _ := json.Marshal(active)
		fmt.Fprintf(w, "event: tasks\ndata: %s\n\n", text)
	})
	return mux
}

func TestPsFilters(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		code         int
		asked, shows string
	}{
		"":                               {0, "[]", "active-a active-b"},
		"-a":                             {0, "[ limit=20&status=ended]", "active-a active-b ended"},
		"-a --label zone=a":              {0, "[label=zone%3Da label=zone%3Da&limit=20&status=ended]", "active-a active-b ended"},
		"--status ended":                 {0, "[limit=20&status=ended]", "ended"},
		"--status running,ended -n 7":    {0, "[status=running%2Cended limit=7&status=ended]", "active-a active-b ended"},
		"--status running -n 7":          {0, "[status=running]", "active-a active-b"},
		"--state failed":                 {0, "[limit=20&state=failed&status=ended]", "ended"},
		"--state failed --status queued": {0, "[]", ""},
		"--state fialed":                 {codeUsage, "[]", `cannot use state="fialed"`},
		"--status runing":                {codeUsage, "[]", `cannot use status="runing"`},
		"--cause boom":                   {codeUsage, "[]", `cannot use cause="boom"`},
		"-n -1":                          {codeUsage, "[]", "--ended is -1: it must not be negative"},
		"--watch --json":                 {codeUsage, "[]", "--watch shows active tasks"},
		"--watch -a":                     {codeUsage, "[]", "--watch shows active tasks"},
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			asked := []string{}
			code, out, said := answering(t, listing(&asked))("", append([]string{"ps"}, strings.Fields(args)...)...)
			if code != want.code || args != "" && fmt.Sprint(asked) != want.asked {
				t.Errorf("exit code %d, asked %q, want %s", code, asked, want.asked)
			}
			if code != 0 {
				out = said
			}
			for _, word := range []string{"active-a", "active-b", "ended"} {
				if code == 0 && strings.Contains(out, word) != strings.Contains(want.shows, word) {
					t.Errorf("shows %s", out)
				}
			}
			if code != 0 && !strings.Contains(out, want.shows) {
				t.Errorf("says %s", out)
			}
		})
	}
}

// TestWatchFilters holds that what is watched is what was asked for.
func TestWatchFilters(t *testing.T) {
	t.Parallel()
	var asked []string
	_, out, _ := answering(t, listing(&asked))("", "ps", "--watch", "--label", "zone=b")
	if !strings.Contains(out, "active-b") || strings.Contains(out, "active-a") {
		t.Errorf("shows %s", out)
	}
}

// TestDrainWaits holds that a stream which breaks off is not taken for the end of the manager.
func TestDrainWaits(t *testing.T) {
	t.Parallel()
	infos := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	mux.HandleFunc("GET /v1/events", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v1/info", func(w http.ResponseWriter, _ *http.Request) {
		began := time.Unix(1, 0)
		if infos++; infos > 2 { // the next manager answers
			began = time.Unix(2, 0)
		}
		_ = json.NewEncoder(w).Encode(manager.Info{StartedAt: began})
	})
	if code, _, said := answering(t, mux)("", "drain", "--wait"); code != 0 || infos != 3 {
		t.Errorf("exit code %d after %d looks: %s", code, infos, said)
	}
}

// TestDeadLimit holds that a list which is not whole says so.
func TestDeadLimit(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/dead", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		_ = json.NewEncoder(w).Encode([]queue.DeadLetter{{Key: "first"}, {Key: "second"}, {Key: "third"}}[:min(n, 3)])
	})
	for limit, want := range map[string]string{"0": "0 0 mayfly: these are the oldest 0: --limit shows more\n", "2": "0 2 mayfly: these are the oldest 2: --limit shows more\n",
		"3": "0 3 ", "-1": "2 0 mayfly: --limit is -1: it must not be negative\n"} {
		code, out, said := answering(t, mux)("", "dead", "list", "--json", "--limit", limit)
		if got := fmt.Sprintf("%d %d %s", code, strings.Count(out, `"key"`), said); got != want {
			t.Errorf("%s: %q, want %q", limit, got, want)
		}
	}
}
