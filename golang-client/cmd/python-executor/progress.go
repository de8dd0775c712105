package main

import (
	"fmt"
	"strings"
	"time"

	pyexec "github.com/python-executor/golang-client"
)

const (
	shownFrom = 8_000_000 // bytes
	barWidth  = 30
	redraw    = 100 * time.Millisecond
)

// withProgress shows on a terminal how far the upload is, if it is a large one.
func withProgress(source pyexec.Source, console *console) pyexec.Source {
	if !console.line.shown {
		return source
	}
	total, err := source.Size()
	if err != nil || total <= shownFrom { // what cannot be read is told when it is to be sent
		return source
	}
	var last time.Time
	return source.WithProgress(func(sent int64) {
		if now := time.Now(); now.Sub(last) >= redraw || sent >= total {
			last = now
			console.line.show(bar(sent, total))
		}
	})
}

func bar(sent, total int64) string {
	sent = min(sent, total)
	full := strings.Repeat("#", int(barWidth*sent/total))
	return fmt.Sprintf("sending %3d%% [%-*s] %.1f/%.1f MB", 100*sent/total, barWidth, full,
		float64(sent)/1e6, float64(total)/1e6)
}
