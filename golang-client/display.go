package pyexec

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Display is an object that a program showed, in one or more MIME types, as in the Jupyter protocol. The value of a MIME
// type is JSON for JSON types, a string with base64 for binary types, and a string with text for others.
type Display struct {
	Data     map[string]json.RawMessage `json:"data"`
	Metadata map[string]json.RawMessage `json:"metadata"` // for example the width of an image, by MIME type
}

var binaryTypes = regexp.MustCompile(`^((image|audio|video|font)/.*|application/(pdf|octet-stream|zip))$`)

// displaySuffixes are the suffixes of files of each MIME type, the best type first.
var displaySuffixes = []struct{ mimeType, suffix string }{
	{"image/png", ".png"}, {"image/jpeg", ".jpg"}, {"image/gif", ".gif"}, {"image/webp", ".webp"},
	{"image/svg+xml", ".svg"}, {"application/pdf", ".pdf"}, {"text/html", ".html"}, {"application/json", ".json"},
	{"text/markdown", ".md"}, {"text/latex", ".tex"}, {"application/javascript", ".js"}, {"text/plain", ".txt"},
}

// MIMEType returns the best MIME type: an image if there is one. Text is the last choice.
func (d Display) MIMEType() string {
	for _, each := range displaySuffixes {
		if _, found := d.Data[each.mimeType]; found && each.mimeType != "text/plain" {
			return each.mimeType
		}
	}
	for _, mimeType := range sortedKeys(d.Data) {
		if mimeType != "text/plain" {
			return mimeType
		}
	}
	return "text/plain"
}

// Suffix returns the suffix of a file of the best MIME type, such as ".png".
func (d Display) Suffix() string {
	best := d.MIMEType()
	for _, each := range displaySuffixes {
		if each.mimeType == best {
			return each.suffix
		}
	}
	switch {
	case strings.HasSuffix(best, "+json"):
		return ".json"
	case isBinaryType(best):
		return ".bin"
	}
	return ".txt"
}

// Content returns the content of a file of this MIME type; an empty one means the best.
func (d Display) Content(mimeType string) ([]byte, error) {
	if mimeType == "" {
		mimeType = d.MIMEType()
	}
	value, found := d.Data[mimeType]
	if !found {
		return nil, fmt.Errorf("the display has no %s", mimeType)
	}
	var text string
	if mimeType == "application/json" || strings.HasSuffix(mimeType, "+json") || json.Unmarshal(value, &text) != nil {
		return value, nil
	}
	if !isBinaryType(mimeType) {
		return []byte(text), nil
	}
	content, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, answerError("invalid %s in a display from the server: %v", mimeType, err)
	}
	return content, nil
}

// Save writes a file. The suffix of the path selects the MIME type, if the display has it; otherwise it is the best one.
func (d Display) Save(path string) error {
	suffix := strings.ReplaceAll(strings.ToLower(filepath.Ext(path)), ".jpeg", ".jpg")
	mimeType := ""
	if at := slices.IndexFunc(displaySuffixes, func(each struct{ mimeType, suffix string }) bool {
		_, found := d.Data[each.mimeType]
		return found && each.suffix == suffix
	}); at >= 0 {
		mimeType = displaySuffixes[at].mimeType
	}
	content, err := d.Content(mimeType)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o666)
}

func isBinaryType(mimeType string) bool {
	return mimeType != "image/svg+xml" && binaryTypes.MatchString(mimeType)
}
