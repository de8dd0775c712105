package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// isUnsafe reports whether a terminal may act on a character: control characters except tab and line feed, and
// characters that change the direction or the lines of text.
func isUnsafe(letter rune) bool {
	switch {
	case letter == '\t' || letter == '\n':
		return false
	case letter < 0x20 || 0x7f <= letter && letter <= 0x9f:
		return true
	}
	return letter == 0x061c || letter == 0x200e || letter == 0x200f || 0x2028 <= letter && letter <= 0x202e ||
		0x2066 <= letter && letter <= 0x2069
}

// printable returns the text with unsafe characters as escapes, such as \x1b. Invalid bytes are replaced.
func printable(text string) string {
	var out strings.Builder
	for _, letter := range text {
		switch {
		case !isUnsafe(letter):
			out.WriteRune(letter)
		case letter <= 0xff:
			fmt.Fprintf(&out, `\x%02x`, letter)
		default:
			fmt.Fprintf(&out, `\u%04x`, letter)
		}
	}
	return out.String()
}

// printableStream escapes text that arrives in pieces. It keeps the beginning of a character for the next piece.
type printableStream struct{ rest []byte }

// next returns the escaped text of the next piece.
func (s *printableStream) next(data []byte) string {
	data = append(s.rest, data...)
	end := len(data)
	for start := max(0, end-utf8.UTFMax+1); start < end; start++ {
		if utf8.RuneStart(data[start]) && !utf8.FullRune(data[start:]) {
			end = start
		}
	}
	s.rest = append([]byte(nil), data[end:]...)
	return printable(string(data[:end]))
}
