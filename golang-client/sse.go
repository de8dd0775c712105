package pyexec

import (
	"bytes"
	"strings"
)

// message is one message of an event stream: its event type, its data, and the last ID received so far.
type message struct{ event, data, id string }

// sseParser is an incremental parser for Server-Sent Events, as the WHATWG HTML standard defines them.
type sseParser struct {
	lastID  string
	line    []byte
	afterCR bool
	started bool
	event   string
	data    []string
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// feed parses a chunk of any size and returns the messages that it completes. An incomplete message at the end of
// the stream is discarded, as the standard says.
func (p *sseParser) feed(chunk []byte) []message {
	var messages []message
	for len(chunk) > 0 {
		if p.afterCR { // a CRLF split between two chunks is one line end
			p.afterCR = false
			if chunk[0] == '\n' {
				chunk = chunk[1:]
				continue
			}
		}
		end := bytes.IndexAny(chunk, "\r\n")
		if end < 0 {
			p.line = append(p.line, chunk...)
			break
		}
		p.line = append(p.line, chunk[:end]...)
		p.afterCR = chunk[end] == '\r'
		chunk = chunk[end+1:]
		if completed, ok := p.parseLine(p.line); ok {
			messages = append(messages, completed)
		}
		p.line = p.line[:0]
	}
	return messages
}

func (p *sseParser) parseLine(line []byte) (message, bool) {
	if !p.started {
		p.started = true
		line = bytes.TrimPrefix(line, byteOrderMark)
	}
	if len(line) == 0 {
		return p.dispatch()
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	text := replaceInvalid(string(bytes.TrimPrefix(value, []byte(" "))))
	switch string(name) {
	case "event":
		p.event = text
	case "data":
		p.data = append(p.data, text)
	case "id":
		if !strings.Contains(text, "\x00") {
			p.lastID = text
		}
	}
	return message{}, false
}

func (p *sseParser) dispatch() (message, bool) {
	completed := message{event: p.event, data: strings.Join(p.data, "\n"), id: p.lastID}
	hasData := p.data != nil
	if completed.event == "" {
		completed.event = "message"
	}
	p.event, p.data = "", nil
	return completed, hasData
}
