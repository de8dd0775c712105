package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// spacedJSON is the same document on one line, spelt as the Python program spells it: a space after each comma
// and colon, only what must be escaped is, and members and numbers stay as the server wrote them.
func spacedJSON(document []byte) []byte {
	var out bytes.Buffer
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	spell(&out, decoder)
	return out.Bytes()
}

// spell writes the next value. The document has been read before: it is sound.
func spell(out *bytes.Buffer, decoder *json.Decoder) {
	token, err := decoder.Token()
	if err != nil {
		return
	}
	switch token := token.(type) {
	case json.Delim:
		out.WriteString(token.String())
		for first := true; decoder.More(); first = false {
			if !first {
				out.WriteString(", ")
			}
			if token == '{' {
				spell(out, decoder)
				out.WriteString(": ")
			}
			spell(out, decoder)
		}
		spellEnd(out, decoder)
	case string:
		spellText(out, token)
	case nil:
		out.WriteString("null")
	default: // a number or a truth value
		fmt.Fprint(out, token)
	}
}

func spellEnd(out *bytes.Buffer, decoder *json.Decoder) {
	if end, err := decoder.Token(); err == nil {
		fmt.Fprint(out, end)
	}
}

var escapes = map[rune]string{
	'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`,
}

func spellText(out *bytes.Buffer, text string) {
	out.WriteByte('"')
	for _, letter := range text {
		escape, special := escapes[letter]
		switch {
		case special:
			out.WriteString(escape)
		case letter < ' ':
			fmt.Fprintf(out, `\u%04x`, letter)
		default:
			out.WriteRune(letter)
		}
	}
	out.WriteByte('"')
}
