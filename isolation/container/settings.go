package container

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
)

// settings are the container's, as Docker wants them.
func (r *run) settings(uid, gid uint32) (*container.Config, *container.HostConfig, error) {
	s, l := &r.spec, &r.spec.Limits
	kept := *s
	kept.Args, kept.Env = nil, nil // which may be large, and the container has them
	label, err := json.Marshal(kept)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot encode the program: %w", err)
	}
	config := &container.Config{
		Image: s.Image, Env: s.Env, WorkingDir: s.Dir, User: fmt.Sprintf("%d:%d", uid, gid),
		OpenStdin: s.Stdin != "", StdinOnce: s.Stdin != "", AttachStdin: s.Stdin != "",
		Labels: map[string]string{labelOwner: r.engine.config.Owner, labelSpec: string(label), labelPlace: r.label},
	}
	if s.Stdin != "" && s.Private != "" {
		config.Labels[labelFeed] = "noted"
	}
	if len(s.Args) > 0 {
		config.Entrypoint, config.Cmd = s.Args[:1], s.Args[1:]
	}
	yes := true
	temporary := "rw,nosuid,nodev,exec,mode=1777"
	if l.Memory > 0 {
		temporary += ",size=" + strconv.FormatInt(l.Memory/2, 10)
	}
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(r.engine.config.Network), ReadonlyRootfs: true, CapDrop: []string{"ALL"},
		SecurityOpt: []string{"no-new-privileges"}, Init: &yes, IpcMode: container.IPCModePrivate, OomScoreAdj: oomScore,
		Tmpfs: map[string]string{"/tmp": temporary, "/var/tmp": temporary}, ShmSize: l.Memory / 2,
		// The engine's log is where the output is read from, also after a restart. It is bounded, and a little larger than what is kept.
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": strconv.FormatInt(logSize(s.OutputMax), 10), "max-file": "2"}},
		Resources: container.Resources{Memory: l.Memory, MemorySwap: l.Memory},
	}
	if r.parent != nil {
		host.CgroupParent = r.parent.Path()
		host.Memory = r.parent.Limit(l.Memory)
		host.MemorySwap = host.Memory
	}
	if s.Private != "" {
		// Not as a bind, whose parts are separated by colons: the id may hold one.
		host.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: s.Private, Target: s.Private, BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate}}}
	}
	if s.NoNetwork {
		host.NetworkMode = "none"
	}
	if l.PIDs > 0 {
		pids := l.PIDs + 1 // the container's init is none of the program's
		host.PidsLimit = &pids
	}
	cores := make([]string, len(l.Cores))
	for i, n := range l.Cores {
		cores[i] = strconv.Itoa(n)
	}
	host.CpusetCpus = strings.Join(cores, ",")
	if int64(len(cores))*1000 != l.MilliCPU { // whole cores of its own need no quota
		host.NanoCPUs = l.MilliCPU * 1e6
	}
	host.CPUShares = max(2, l.MilliCPU*1024/1000)
	return config, host, nil
}

// oomScore is a program's oom_score_adj, as that of a process is.
const oomScore = 500
