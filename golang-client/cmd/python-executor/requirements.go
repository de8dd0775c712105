package main

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// byteOrderMarks are in this order because the mark of UTF-32LE begins with that of UTF-16LE.
var byteOrderMarks = []struct {
	mark  string
	name  string
	width int
	order binary.ByteOrder
}{
	{"\xff\xfe\x00\x00", "UTF-32", 4, binary.LittleEndian},
	{"\x00\x00\xfe\xff", "UTF-32", 4, binary.BigEndian},
	{"\xff\xfe", "UTF-16", 2, binary.LittleEndian},
	{"\xfe\xff", "UTF-16", 2, binary.BigEndian},
}

// decodeFoundRequirements decodes the requirements.txt of the input; it returns an empty string if the file is blank.
func decodeFoundRequirements(command *cobra.Command, content []byte) (string, error) {
	text, err := decodeRequirements(command, content, requirementsName)
	if strings.TrimSpace(text) == "" {
		return "", err
	}
	return text, err
}

// decodeRequirements decodes a requirements.txt as pip does: a byte order mark decides, else the text is UTF-8.
func decodeRequirements(command *cobra.Command, content []byte, label string) (string, error) {
	for _, encoding := range byteOrderMarks {
		rest, found := bytes.CutPrefix(content, []byte(encoding.mark))
		if !found {
			continue
		}
		text, valid := decodeWide(rest, encoding.width, encoding.order)
		if !valid {
			return "", usageErrorf(command, "%s: not %s text", label, encoding.name)
		}
		return text, nil
	}
	return decodeUTF8(command, bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")), label)
}

// decodeWide decodes units of two bytes (UTF-16) or four (UTF-32), and reports whether they are valid text.
func decodeWide(content []byte, width int, order binary.ByteOrder) (string, bool) {
	if len(content)%width != 0 {
		return "", false
	}
	var text strings.Builder
	for at := 0; at < len(content); at += width {
		var letter rune
		if width == 4 {
			unit := order.Uint32(content[at:])
			if unit > utf8.MaxRune {
				return "", false
			}
			letter = rune(unit)
		} else {
			letter = rune(order.Uint16(content[at:]))
			if letter >= 0xd800 && letter < 0xdc00 && at+width < len(content) {
				low := rune(order.Uint16(content[at+width:]))
				if low < 0xdc00 || low > 0xdfff {
					return "", false
				}
				letter = 0x10000 + (letter-0xd800)<<10 + low - 0xdc00
				at += width
			}
		}
		if !utf8.ValidRune(letter) {
			return "", false
		}
		text.WriteRune(letter)
	}
	return text.String(), true
}
