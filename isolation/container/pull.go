package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"github.com/mayfly/mayfly/internal/secret"
	"github.com/mayfly/mayfly/isolation"
)

// pull makes sure that the image is there.
func (e *Engine) pull(ctx, asked context.Context, spec *isolation.Spec) error {
	if e.config.Pull != PullAlways {
		_, err := e.docker.ImageInspect(ctx, spec.Image)
		switch {
		case err == nil:
			return nil
		case !errdefs.IsNotFound(err):
			return fmt.Errorf("cannot look for the image %s: %w", spec.Image, err)
		case e.config.Pull == PullNever:
			return &startError{fmt.Sprintf("cannot start it: the image %s is not on this host, which pulls none (MAYFLY_PULL=never)", spec.Image)}
		}
	}
	auth, err := e.credentials(spec.Image)
	if err != nil {
		return err
	}
	// Who has the task stopped has the pull stopped, too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(asked, cancel)()
	e.progress(spec.ID, "pulls "+spec.Image)
	defer e.progress(spec.ID, "")
	stream, err := e.docker.ImagePull(ctx, spec.Image, image.PullOptions{RegistryAuth: auth})
	if err == nil {
		err = e.follow(stream, spec)
		stream.Close()
	}
	return pullFault(spec.Image, err)
}

// pullFault tells an image that cannot be had by anybody from a registry that is out of reach.
func pullFault(name string, err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, words := range []string{"not found", "manifest unknown", "pull access denied", "repository does not exist", "invalid reference format",
		"no matching manifest", "unauthorized", "denied:"} {
		if strings.Contains(text, words) {
			return &startError{fmt.Sprintf("cannot pull the image %s: %s", name, innermost(text))}
		}
	}
	return fmt.Errorf("cannot pull the image %s: %w", name, err)
}

func (e *Engine) progress(id, words string) {
	if e.config.Progress != nil {
		e.config.Progress(id, words)
	}
}

// follow reads what the engine says while it pulls, and tells how far it is.
func (e *Engine) follow(stream io.Reader, spec *isolation.Spec) error {
	type size struct{ current, total int64 }
	layers := map[string]size{}
	last := ""
	for d := json.NewDecoder(stream); ; {
		var m struct {
			ID             string `json:"id"`
			Error          string `json:"error"`
			Status         string `json:"status"`
			ProgressDetail struct {
				Current int64 `json:"current"`
				Total   int64 `json:"total"`
			} `json:"progressDetail"`
		}
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		if m.Status == "Downloading" && m.ProgressDetail.Total > 0 {
			layers[m.ID] = size{m.ProgressDetail.Current, m.ProgressDetail.Total}
		} else if l, ok := layers[m.ID]; ok && m.Status == "Download complete" {
			layers[m.ID] = size{l.total, l.total}
		}
		var sum size
		for _, l := range layers {
			sum.current, sum.total = sum.current+l.current, sum.total+l.total
		}
		words := "pulls " + spec.Image
		if sum.total > 0 {
			words += fmt.Sprintf(": %d %% of %d MB in %d layers", 100*sum.current/sum.total, (sum.total+500_000)/1_000_000, len(layers))
		}
		if words != last {
			e.progress(spec.ID, words)
			last = words
		}
	}
}

// credentials are what the file has for the image's registry, as the engine wants them; empty where it has none. The file is read
// each time: passwords change.
func (e *Engine) credentials(name string) (string, error) {
	if e.config.Auth == "" {
		return "", nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", &startError{fmt.Sprintf("cannot pull the image %s: %v", name, err)}
	}
	text, err := secret.Read("MAYFLY_REGISTRY_AUTH", e.config.Auth)
	if err != nil {
		return "", err
	}
	var file struct {
		Auths map[string]registry.AuthConfig `json:"auths"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return "", fmt.Errorf("cannot read the registries' credentials in %s: %w", e.config.Auth, err)
	}
	domain := reference.Domain(named)
	keys := []string{domain, "https://" + domain}
	if domain == "docker.io" {
		keys = append(keys, "https://index.docker.io/v1/", "index.docker.io")
	}
	for _, key := range keys {
		auth, ok := file.Auths[key]
		if !ok {
			continue
		}
		if err := unfold(&auth); err != nil {
			return "", fmt.Errorf("cannot read the credentials for %s in %s: %w", key, e.config.Auth, err)
		}
		auth.ServerAddress = domain
		encoded, err := registry.EncodeAuthConfig(auth)
		if err != nil {
			return "", fmt.Errorf("cannot encode the credentials for %s: %w", key, err)
		}
		return encoded, nil
	}
	return "", nil
}
