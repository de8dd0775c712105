package pyexec

import (
	"context"
	"math/rand/v2"
	"time"
)

// Retry says how often to try again, and when: at most Attempts more tries. The pauses before them double from
// First up to Longest, each shortened at random by up to a half, so that many clients do not come back at the
// same moment. The zero Retry never tries again.
type Retry struct {
	Attempts int
	First    time.Duration
	Longest  time.Duration
}

// pauses gives the pause before each further try, and false when there are no more.
func (r Retry) pauses() func() (time.Duration, bool) {
	left, pause := r.Attempts, r.First
	return func() (time.Duration, bool) {
		if left <= 0 {
			return 0, false
		}
		left--
		now := min(pause, r.Longest)
		pause = min(2*pause, r.Longest)
		return time.Duration(float64(now) * (0.5 + rand.Float64()/2)), true
	}
}

// sleep waits, or fails as ctx ends.
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
