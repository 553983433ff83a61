package systemd

import "testing"

func TestServiceOf(t *testing.T) {
	t.Parallel()
	for groups, want := range map[string]string{
		"0::/system.slice/mayfly.service\n":                             "mayfly.service",
		"0::/system.slice/mayfly.service/below\n":                       "mayfly.service",
		"12:cpu:/\n1:name=systemd:/system.slice/mayfly.service\n0::/\n": "mayfly.service",
		"12:cpu:/x.service\n0::/\n":                                     "",
		"0::/user.slice/user-0.slice/session-1.scope\n":                 "",
		"0::/\n": "",
		"":       "",
	} {
		if got := serviceOf(groups); got != want {
			t.Errorf("%q: %q, want %q", groups, got, want)
		}
	}
}
