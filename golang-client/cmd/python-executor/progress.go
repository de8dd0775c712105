package main

import (
	"fmt"
	"strings"
	"time"

	pyexec "github.com/python-executor/golang-client"
)

const (
	minBarBytes = 8_000_000
	barWidth    = 30
	redraw      = 100 * time.Millisecond
)

// withProgress adds a progress bar to the source if it is large and the status line is enabled.
func withProgress(source pyexec.Source, console *console) pyexec.Source {
	if !console.statusLine.enabled {
		return source
	}
	total, err := source.Size()
	if err != nil || total <= minBarBytes { // sending the source returns the same error
		return source
	}
	return source.WithProgress(progressOf(total, console))
}

// progressOf returns a function that shows how many bytes of the total have been sent. It shows nothing for a small
// total.
func progressOf(total int64, console *console) func(sent int64) {
	if total <= minBarBytes {
		return func(int64) {}
	}
	var last time.Time
	return func(sent int64) {
		if now := time.Now(); now.Sub(last) >= redraw || sent >= total {
			last = now
			console.statusLine.show(progressBar(sent, total))
		}
	}
}

func progressBar(sent, total int64) string {
	sent = min(sent, total)
	filled := strings.Repeat("#", int(barWidth*sent/total))
	return fmt.Sprintf("sending %3d%% [%-*s] %.1f/%.1f MB", 100*sent/total, barWidth, filled,
		float64(sent)/1e6, float64(total)/1e6)
}
