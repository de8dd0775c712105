package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/nomad/structs"
)

// registeredJob converts a job to the type that a Nomad server validates, and sets the server's defaults. Nomad's own
// conversion is in its agent, which takes minutes to compile. JSON does it too, because the fields have the same names.
// A field with a value that would get lost is an error.
func registeredJob(job *api.Job) (*structs.Job, error) {
	text, err := withoutZeros(job)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var registered structs.Job
	if err := decoder.Decode(&registered); err != nil {
		return nil, fmt.Errorf("cannot convert the job: %w", err)
	}
	registered.Canonicalize()
	return &registered, nil
}

// withoutZeros encodes a value as JSON and leaves out members that are null, false, 0 or empty text. The api package has
// fields that the server's type lacks; all of them are unset.
func withoutZeros(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // a time in nanoseconds does not fit into a float64
	var document any
	if err := decoder.Decode(&document); err != nil {
		return nil, err
	}
	removeZeros(document)
	return json.Marshal(document)
}

func removeZeros(document any) {
	switch document := document.(type) {
	case map[string]any:
		for name, member := range document {
			switch member {
			case nil, false, json.Number("0"), "":
				delete(document, name)
			default:
				removeZeros(member)
			}
		}
	case []any:
		for _, member := range document {
			removeZeros(member)
		}
	}
}
