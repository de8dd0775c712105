package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const grace = 5 * time.Second

// exitOnInterrupt exits with code 130 on Ctrl-C, until the returned function is called. The command run calls it,
// and then handles signals itself.
func exitOnInterrupt() (stop func()) {
	if signal.Ignored(syscall.SIGINT) {
		return func() {}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT)
	go exitOn(signals)
	return func() { signal.Stop(signals) }
}

// exitOn exits at the first signal. The kernel and the shell both send SIGHUP when a terminal is closed, so it does not
// count as a second signal.
func exitOn(signals <-chan os.Signal) {
	for received := range signals {
		if received != syscall.SIGHUP {
			os.Exit(signalCode(received))
		}
	}
}

func signalCode(received os.Signal) int {
	number, _ := received.(syscall.Signal)
	return exitSignal + int(number)
}

// interruptible returns the exit code of work, or 128 plus the number of the first signal.
//
// The first signal calls onInterrupt. If that returns true, work gets a few seconds to end by itself; otherwise
// it is cancelled at once. A second signal exits at once. A signal for which handles returns true does not count.
func interruptible(
	stopExitOnInterrupt func(), work func(context.Context) (int, error), onInterrupt func() bool,
	handles func(os.Signal) bool,
) (int, error) {
	signals := make(chan os.Signal, 2)
	for _, number := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(number) { // a signal that the parent ignores (nohup, a background job) stays ignored
			signal.Notify(signals, number)
		}
	}
	stopExitOnInterrupt()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type outcome struct {
		code int
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		code, err := work(ctx)
		done <- outcome{code, err}
	}()
	for {
		select {
		case end := <-done:
			return end.code, end.err
		case received := <-signals:
			if handles(received) {
				continue
			}
			go exitOn(signals)
			if onInterrupt() {
				select {
				case end := <-done:
					return signalCode(received), end.err
				case <-time.After(grace):
				}
			}
			return signalCode(received), nil
		}
	}
}

func handlesNone(os.Signal) bool { return false }
