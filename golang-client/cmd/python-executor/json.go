package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// formatJSON formats a JSON document on one line as the Python program does: with a space after each comma and
// colon, and with only the necessary escapes. The order of members and the form of numbers do not change.
func formatJSON(document []byte) []byte {
	var out bytes.Buffer
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	writeValue(&out, decoder)
	return out.Bytes()
}

// writeValue writes the next value. It ignores errors, because the document has already been parsed once.
func writeValue(out *bytes.Buffer, decoder *json.Decoder) {
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
				writeValue(out, decoder)
				out.WriteString(": ")
			}
			writeValue(out, decoder)
		}
		writeEnd(out, decoder)
	case string:
		writeString(out, token)
	case nil:
		out.WriteString("null")
	default: // a number or a boolean
		fmt.Fprint(out, token)
	}
}

func writeEnd(out *bytes.Buffer, decoder *json.Decoder) {
	if end, err := decoder.Token(); err == nil {
		fmt.Fprint(out, end)
	}
}

var escapes = map[rune]string{
	'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`,
}

func writeString(out *bytes.Buffer, text string) {
	out.WriteByte('"')
	for _, letter := range text {
		escape, special := escapes[letter]
		switch {
		case special:
			out.WriteString(escape)
		case isUnsafe(letter):
			fmt.Fprintf(out, `\u%04x`, letter)
		default:
			out.WriteRune(letter)
		}
	}
	out.WriteByte('"')
}
