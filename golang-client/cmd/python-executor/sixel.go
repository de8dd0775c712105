package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color/palette"
	"image/draw"
	"image/png"
	"maps"
	"slices"
)

// Images that have more pixels or are longer are not shown: they do not fit on most screens.
const (
	sixelPixels = 2_000_000
	sixelSide   = 8192
)

// sixelSequence returns a PNG as a sixel sequence, or nil if it is malformed or too large.
func sixelSequence(content []byte) []byte {
	config, err := png.DecodeConfig(bytes.NewReader(content))
	if err != nil || config.Width > sixelPixels/config.Height || max(config.Width, config.Height) > sixelSide {
		return nil
	}
	decoded, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		return nil
	}
	bounds := decoded.Bounds()
	opaque := image.NewRGBA(bounds)
	draw.Draw(opaque, bounds, image.White, image.Point{}, draw.Src)
	draw.Draw(opaque, bounds, decoded, bounds.Min, draw.Over)
	indexed := image.NewPaletted(bounds, palette.Plan9)
	draw.FloydSteinberg.Draw(indexed, bounds, opaque, bounds.Min)

	var out bytes.Buffer
	fmt.Fprintf(&out, "\x1bPq\"1;1;%d;%d", bounds.Dx(), bounds.Dy())
	for number, color := range palette.Plan9 {
		red, green, blue, _ := color.RGBA()
		fmt.Fprintf(&out, "#%d;2;%d;%d;%d", number, percent(red), percent(green), percent(blue))
	}
	for top := 0; top < bounds.Dy(); top += 6 {
		writeBand(&out, indexed, top)
	}
	out.WriteString("\x1b\\\n")
	return out.Bytes()
}

func percent(part uint32) uint32 { return (part*100 + 0x7fff) / 0xffff }

// writeBand writes six lines of the image: for each color a row of characters, each with six pixels as bits.
func writeBand(out *bytes.Buffer, indexed *image.Paletted, top int) {
	width, height := indexed.Rect.Dx(), indexed.Rect.Dy()
	rows := map[uint8][]byte{}
	for y := top; y < min(top+6, height); y++ {
		for x, color := range indexed.Pix[y*indexed.Stride:][:width] {
			if rows[color] == nil {
				rows[color] = bytes.Repeat([]byte{'?'}, width)
			}
			rows[color][x] += 1 << (y - top)
		}
	}
	for _, color := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(out, "#%d", color)
		writeRuns(out, rows[color])
		out.WriteByte('$')
	}
	out.WriteByte('-')
}

// writeRuns writes a row. It writes characters that follow each other often as a count and one of them.
func writeRuns(out *bytes.Buffer, row []byte) {
	for len(row) > 0 {
		count := 1
		for count < len(row) && row[count] == row[0] {
			count++
		}
		if count > 3 {
			fmt.Fprintf(out, "!%d%c", count, row[0])
		} else {
			out.Write(row[:count])
		}
		row = row[count:]
	}
}
