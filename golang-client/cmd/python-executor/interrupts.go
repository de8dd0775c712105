package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const grace = 5 * time.Second

// leaveOnInterrupt has Ctrl-C leave with 130, until the function that it gives is called: whoever has something
// to do first, a run under way, then takes the signal over.
func leaveOnInterrupt() (stop func()) {
	if signal.Ignored(syscall.SIGINT) {
		return func() {}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT)
	go leaveAt(signals)
	return func() { signal.Stop(signals) }
}

func leaveAt(signals <-chan os.Signal) {
	os.Exit(codeOf(<-signals))
}

func codeOf(received os.Signal) int {
	number, _ := received.(syscall.Signal)
	return exitSignal + int(number)
}

// interruptible is the story's exit code, or 128 and the signal's number if one came meanwhile.
//
// At the first signal stop is called. If it says true the story has some seconds to come to its end, else it
// is cancelled. A second signal leaves at once.
func interruptible(stopLeaving func(), story func(context.Context) (int, error), stop func() bool) (int, error) {
	signals := make(chan os.Signal, 2)
	for _, heeded := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(heeded) { // what our parent had us ignore (nohup, a background job) stays ignored
			signal.Notify(signals, heeded)
		}
	}
	stopLeaving()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type ending struct {
		code int
		err  error
	}
	over := make(chan ending, 1)
	go func() {
		code, err := story(ctx)
		over <- ending{code, err}
	}()
	select {
	case end := <-over:
		return end.code, end.err
	case first := <-signals:
		go leaveAt(signals)
		if stop() {
			select {
			case <-over:
			case <-time.After(grace):
			}
		}
		return codeOf(first), nil
	}
}
