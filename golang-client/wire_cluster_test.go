package pyexec

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

func TestClusters(t *testing.T) {
	type one struct {
		Name    string
		Cluster json.RawMessage
	}
	for _, each := range golden[one](t, "clusters") {
		t.Run(each.Name, func(t *testing.T) {
			server := serve(t, hangUp, respond(200, string(each.Cluster)))
			cluster, err := server.client.Cluster(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			encoded, err := json.Marshal(cluster)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, cluster.Raw, each.Cluster)
			// A leader that is not known is null in JSON, and empty in Go.
			sameJSON(t, encoded, bytes.ReplaceAll(each.Cluster, []byte("null"), []byte(`""`)))
			if paths := server.paths(); paths[1] != "GET /api/v1/cluster" {
				t.Error(paths)
			}
		})
	}
}

func TestTimelines(t *testing.T) {
	type one struct {
		Name     string
		Timeline json.RawMessage
	}
	for _, each := range golden[one](t, "timelines") {
		t.Run(each.Name, func(t *testing.T) {
			server := serve(t, hangUp, respond(200, string(each.Timeline)))
			timeline, err := server.client.Timeline(t.Context(), "exe_1")
			if err != nil {
				t.Fatal(err)
			}
			for index, event := range timeline.Events {
				if text := event.At.Format("2006-01-02T15:04:05.000000Z"); !bytes.Contains(each.Timeline, []byte(text)) {
					t.Errorf("event %d is at %s", index, text)
				}
			}
			checkTimeline(t, timeline, each.Timeline)
			if paths := server.paths(); paths[1] != "GET /api/v1/executions/exe_1/timeline" {
				t.Error(paths)
			}
		})
	}
}

// checkTimeline compares all fields except the times, whose form differs.
func checkTimeline(t *testing.T, timeline *Timeline, wire []byte) {
	t.Helper()
	sameJSON(t, timeline.Raw, wire)
	var got, want map[string]any
	encoded, err := json.Marshal(timeline)
	if err := errors.Join(err, json.Unmarshal(encoded, &got), json.Unmarshal(wire, &want)); err != nil {
		t.Fatal(err)
	}
	for _, document := range []map[string]any{got, want} {
		for _, event := range document["events"].([]any) {
			delete(event.(map[string]any), "at")
		}
	}
	encoded, err = json.Marshal(got)
	expected, err2 := json.Marshal(want)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	sameJSON(t, encoded, expected)
}

func TestAnswersThatAreNoStateOrTimeline(t *testing.T) {
	server := serve(t, respond(200, `{}`), respond(200, `{}`))
	var invalid *AnswerError
	if _, err := server.client.Cluster(t.Context()); !errors.As(err, &invalid) {
		t.Error(err)
	}
	if _, err := server.client.Timeline(t.Context(), "exe_1"); !errors.As(err, &invalid) {
		t.Error(err)
	}
}
