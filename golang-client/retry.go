package pyexec

import (
	"context"
	"math/rand/v2"
	"time"
)

// Retry is a retry policy: up to Attempts retries with exponential backoff. The pauses double from First up to
// Longest. Each pause is shortened by a random amount of up to half, so that many clients do not retry at the
// same moment. The zero Retry never retries.
type Retry struct {
	Attempts int
	First    time.Duration
	Longest  time.Duration
}

// pauses returns a function that returns the pause before each retry, and false if no retry is left.
func (r Retry) pauses() func() (time.Duration, bool) {
	left, pause := r.Attempts, r.First
	return func() (time.Duration, bool) {
		if left <= 0 {
			return 0, false
		}
		left--
		current := min(pause, r.Longest)
		pause = min(2*pause, r.Longest)
		return time.Duration(float64(current) * (0.5 + rand.Float64()/2)), true
	}
}

// sleep waits for the pause, or returns ctx's error if ctx ends first.
func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
