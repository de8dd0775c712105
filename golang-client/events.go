package pyexec

import (
	"bytes"
	"encoding/json"
)

// Event is something that happened to an execution: a [Lifecycle], an [Output], a [Setup] or, last, an
// [Ended].
type Event interface {
	// EventID is where it stands in the stream; [Client.Events] goes on after it.
	EventID() string
}

// Lifecycle is a step on its way. Type is submitted, claimed, released, preparing, running, adopted,
// kill_requested, or a word that a newer server uses.
type Lifecycle struct {
	ID          string
	Type        string
	ExecutionID string
	Data        json.RawMessage // all that the server says about it
}

// Output is bytes that the program wrote, as they were. A chunk may end in the middle of a character.
type Output struct {
	ID     string
	Stream string // "stdout" or "stderr"
	Data   []byte
}

// Setup is what is said while an image is pulled, or something is installed. The program prints none of it.
type Setup struct {
	ID   string
	Data []byte
}

// Ended is the last event. Type is finished, failed or killed.
type Ended struct {
	ID     string
	Type   string
	Result *Result // the outcome, with all output
}

// EventID is where it stands in the stream.
func (e Lifecycle) EventID() string { return e.ID }

// EventID is where it stands in the stream.
func (e Output) EventID() string { return e.ID }

// EventID is where it stands in the stream.
func (e Setup) EventID() string { return e.ID }

// EventID is where it stands in the stream.
func (e Ended) EventID() string { return e.ID }

// eventFromMessage is the event that a message stands for, nil for one of a kind this client does not know,
// and AnswerError for one of a known kind that cannot be read.
func eventFromMessage(sent message) (Event, error) {
	data := []byte(sent.data)
	switch sent.event {
	case "finished", "failed", "killed":
		result, err := parseResult(data)
		if err != nil {
			return nil, err
		}
		return Ended{ID: sent.id, Type: sent.event, Result: result}, nil
	case "output":
		return outputFromMessage(sent)
	case "setup":
		return setupFromMessage(sent)
	}
	var step struct {
		ExecutionID string `json:"execution_id"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) || json.Unmarshal(data, &step) != nil {
		return nil, nil
	}
	return Lifecycle{ID: sent.id, Type: sent.event, ExecutionID: step.ExecutionID, Data: data}, nil
}

func outputFromMessage(sent message) (Event, error) {
	var chunk struct {
		Stream string  `json:"stream"`
		Data   *[]byte `json:"data"` // base64, as encoding/json reads bytes
	}
	err := json.Unmarshal([]byte(sent.data), &chunk)
	if err != nil || chunk.Data == nil || (chunk.Stream != "stdout" && chunk.Stream != "stderr") {
		return nil, answerError("the server sent an output event that cannot be read: %s", excerpt([]byte(sent.data)))
	}
	return Output{ID: sent.id, Stream: chunk.Stream, Data: *chunk.Data}, nil
}

func setupFromMessage(sent message) (Event, error) {
	var chunk struct {
		Data *[]byte `json:"data"`
	}
	if json.Unmarshal([]byte(sent.data), &chunk) != nil || chunk.Data == nil {
		return nil, answerError("the server sent a setup event that cannot be read: %s", excerpt([]byte(sent.data)))
	}
	return Setup{ID: sent.id, Data: *chunk.Data}, nil
}
