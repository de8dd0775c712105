package pyexec

import (
	"bytes"
	"strings"
)

// message is one message of an event stream: its kind, its text, and the last id seen so far.
type message struct{ event, data, id string }

// sseParser reads Server-Sent Events from bytes that arrive in any pieces (the WHATWG standard's grammar).
type sseParser struct {
	lastID  string
	line    []byte
	afterCR bool
	begun   bool
	event   string
	data    []string
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// feed takes a chunk and gives the messages that are complete. What is unfinished at the end was never sent.
func (p *sseParser) feed(chunk []byte) []message {
	var messages []message
	for len(chunk) > 0 {
		if p.afterCR { // a CRLF that was cut in two is one line end, not two
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
		if sent, complete := p.take(p.line); complete {
			messages = append(messages, sent)
		}
		p.line = p.line[:0]
	}
	return messages
}

func (p *sseParser) take(line []byte) (message, bool) {
	if !p.begun {
		p.begun = true
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
	sent := message{event: p.event, data: strings.Join(p.data, "\n"), id: p.lastID}
	complete := p.data != nil
	if sent.event == "" {
		sent.event = "message"
	}
	p.event, p.data = "", nil
	return sent, complete
}
