package isolation

import "context"

// Router runs programs that name an image in one sandbox, and all others in another one.
type Router struct {
	Processes Sandbox
	// Images may be nil: then no program may name one.
	Images Sandbox
}

// Run implements Sandbox.
func (r *Router) Run(ctx context.Context, spec *Spec, started func(Started)) (*Exit, error) {
	if spec.Image != "" && r.Images != nil {
		return r.Images.Run(ctx, spec, started)
	}
	return r.Processes.Run(ctx, spec, started)
}

// Held implements Sandbox.
func (r *Router) Held(ctx context.Context) ([]Held, error) {
	held, err := r.Processes.Held(ctx)
	if err != nil || r.Images == nil {
		return held, err
	}
	more, err := r.Images.Held(ctx)
	return append(held, more...), err
}

// Release implements Sandbox.
func (r *Router) Release(id string) {
	r.Processes.Release(id)
	if r.Images != nil {
		r.Images.Release(id)
	}
}
