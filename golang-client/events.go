package pyexec

import (
	"bytes"
	"encoding/json"
)

// Event is an event of an execution: a [Lifecycle], an [Output], a [Setup], a [Displayed] or, as the last one, an [Ended].
type Event interface {
	// EventID returns the ID of the event. [Client.Events] can continue after it.
	EventID() string
}

// Lifecycle is a change of an execution's state before its end. Type is submitted, claimed, released, preparing,
// running, adopted, kill_requested, or a type that only a newer server knows.
type Lifecycle struct {
	ID          string
	Type        string
	ExecutionID string
	Data        json.RawMessage // the whole event as the server sent it
}

// Output contains raw bytes that the program wrote. A chunk may end in the middle of a character.
type Output struct {
	ID     string
	Stream string // "stdout" or "stderr"
	Data   []byte
}

// Setup is output of the setup: pulling the image and installing packages. It is not output of the program.
type Setup struct {
	ID   string
	Data []byte
}

// Displayed says that the program showed something, such as a figure. The result contains it, too.
type Displayed struct {
	ID      string
	Display Display
}

// Ended is the last event. Type is finished, failed or killed.
type Ended struct {
	ID     string
	Type   string
	Result *Result // the result, with all output
}

// EventID returns the ID of the event.
func (e Lifecycle) EventID() string { return e.ID }

// EventID returns the ID of the event.
func (e Output) EventID() string { return e.ID }

// EventID returns the ID of the event.
func (e Setup) EventID() string { return e.ID }

// EventID returns the ID of the event.
func (e Displayed) EventID() string { return e.ID }

// EventID returns the ID of the event.
func (e Ended) EventID() string { return e.ID }

// eventFromMessage converts a message of an event stream to an event. It returns nil for an unknown message that
// is not a JSON object, and fails with an AnswerError for a known message with invalid data.
func eventFromMessage(received message) (Event, error) {
	data := []byte(received.data)
	switch received.event {
	case "finished", "failed", "killed":
		result, err := parseResult(data)
		if err != nil {
			return nil, err
		}
		return Ended{ID: received.id, Type: received.event, Result: result}, nil
	case "output":
		return outputFromMessage(received)
	case "setup":
		return setupFromMessage(received)
	case "display":
		var display Display
		if json.Unmarshal(data, &display) != nil || display.Data == nil {
			return nil, answerError("invalid display event from the server: %s", excerpt(data))
		}
		return Displayed{ID: received.id, Display: display}, nil
	}
	var change struct {
		ExecutionID string `json:"execution_id"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) || json.Unmarshal(data, &change) != nil {
		return nil, nil
	}
	return Lifecycle{ID: received.id, Type: received.event, ExecutionID: change.ExecutionID, Data: data}, nil
}

func outputFromMessage(received message) (Event, error) {
	var chunk struct {
		Stream string  `json:"stream"`
		Data   *[]byte `json:"data"` // encoding/json decodes base64
	}
	err := json.Unmarshal([]byte(received.data), &chunk)
	if err != nil || chunk.Data == nil || (chunk.Stream != "stdout" && chunk.Stream != "stderr") {
		return nil, answerError("invalid output event from the server: %s", excerpt([]byte(received.data)))
	}
	return Output{ID: received.id, Stream: chunk.Stream, Data: *chunk.Data}, nil
}

func setupFromMessage(received message) (Event, error) {
	var chunk struct {
		Data *[]byte `json:"data"`
	}
	if json.Unmarshal([]byte(received.data), &chunk) != nil || chunk.Data == nil {
		return nil, answerError("invalid setup event from the server: %s", excerpt([]byte(received.data)))
	}
	return Setup{ID: received.id, Data: *chunk.Data}, nil
}
