"""Test the Go client with a real server. Its own tests use fake servers."""

import json

from tests.support.golang import Module

PROGRAM = """
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"time"

	pyexec "github.com/python-executor/golang-client"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	ctx := context.Background()
	client := must(pyexec.New(os.Args[1]))
	report := map[string]any{}

	id := must(client.Submit(ctx, pyexec.Files(map[string]string{
		"main.py": "import helper, os, sys\\nprint(helper.X, os.environ['A'], sys.argv[1:], sys.stdin.read())",
		"helper.py": "X = 5",
	}), pyexec.WithEnv("A", "1"), pyexec.WithArgs("-x"), pyexec.WithStdin("in"), pyexec.WithTimeout(time.Minute)))
	report["waited for"] = must(client.Wait(ctx, id)).Stdout
	report["got"] = must(client.Get(ctx, id)).OK()
	report["logs"] = string(must(io.ReadAll(must(client.Logs(ctx, id, pyexec.OnlyStream("stdout"))))))
	var listed bool
	for entry, err := range client.List(ctx, pyexec.Listing{Limit: 500}) {
		listed = listed || must(entry, err).ExecutionID == id
	}
	report["listed"] = listed
	cluster, timeline := must(client.Cluster(ctx)), must(client.Timeline(ctx, id))
	last := timeline.Events[len(timeline.Events)-1]
	report["timeline"] = []any{timeline.ID == id, last.Type, *last.ExitCode, last.Replica == cluster.Leader}

	files := map[string]string{"main.py": "import m\\nm.X", "m.py": "X = 6 * 7"}
	report["evaluated"] = *must(client.EvalFiles(ctx, files)).Value

	one := must(client.Submit(ctx, pyexec.Text("1"), pyexec.WithIdempotencyKey("go-client-one")))
	report["one key"] = one == must(client.Submit(ctx, pyexec.Text("1"), pyexec.WithIdempotencyKey("go-client-one")))
	_, err := client.Submit(ctx, pyexec.Text("2"), pyexec.WithIdempotencyKey("go-client-one"))
	report["another request"] = errors.Is(err, pyexec.ErrConflict)

	sleeper := pyexec.Text("import time\\nprint('up', flush=True)\\ntime.sleep(600)")
	ending, cancel := context.WithCancel(ctx)
	var running string
	_, err = client.Run(ending, sleeper, pyexec.OnEvent(func(event pyexec.Event) {
		switch event := event.(type) {
		case pyexec.Lifecycle:
			running = event.ExecutionID
		case pyexec.Output:
			cancel()
		}
	}))
	report["cancelled"] = errors.Is(err, context.Canceled)
	report["ended"] = must(client.Wait(ctx, running)).Status

	id = must(client.Submit(ctx, sleeper))
	report["killed"] = must(client.Kill(ctx, id))
	_, err = client.Run(ctx, pyexec.Text("1"), pyexec.WithMemoryMB(1))
	var refused *pyexec.Error
	report["refused"] = errors.As(err, &refused) && refused.Field == "config.memory_mb"
	json.NewEncoder(os.Stdout).Encode(report)
}
"""


def test_all_methods(server, tmp_path):
    printed = Module.of(tmp_path, PROGRAM).go("run", ".", server.url + "/")
    assert json.loads(printed) == {
        "waited for": "5 1 ['-x'] in\n",
        "got": True,
        "logs": "5 1 ['-x'] in\n",
        "listed": True,
        "timeline": [True, "finished", 0, True],
        "evaluated": "42",
        "one key": True,
        "another request": True,
        "cancelled": True,
        "ended": "killed",
        "killed": "killed",
        "refused": True,
    }
