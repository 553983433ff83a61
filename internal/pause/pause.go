// Package pause waits between two tries.
package pause

import (
	"context"
	"time"
)

// For waits for d or for the end of ctx, whose error it returns.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
