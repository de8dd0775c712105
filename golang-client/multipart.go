package pyexec

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/textproto"
	"sync"
)

// uploadBody is the multipart body of one attempt to send code. The metadata comes first, so that the server can
// stream the archive. The body is built while it is sent, and never held in memory as a whole.
type uploadBody struct {
	contentType string
	archive     io.ReadCloser
	all         io.Reader
	onSent      func() // called when the whole body has been read

	lock sync.Mutex
	err  error
}

func newUploadBody(from *upload, onSent func()) (*uploadBody, error) {
	archive, err := from.source.open()
	if err != nil {
		return nil, err
	}
	var head bytes.Buffer
	form := multipart.NewWriter(&head)
	part(form, `form-data; name="metadata"`, "application/json")
	head.Write(from.metadata)
	part(form, `form-data; name="tar"; filename="input.tar"`, "application/x-tar")
	tail := "\r\n--" + form.Boundary() + "--\r\n"
	body := &uploadBody{contentType: form.FormDataContentType(), archive: archive, onSent: onSent}
	body.all = io.MultiReader(&head, archive, bytes.NewReader([]byte(tail)))
	return body, nil
}

// newContentBody returns the body of one attempt to send a file as it is.
func newContentBody(content io.Reader, onSent func()) *uploadBody {
	return &uploadBody{
		contentType: "application/octet-stream", archive: io.NopCloser(content), all: content, onSent: onSent,
	}
}

func part(form *multipart.Writer, disposition, kind string) {
	header := textproto.MIMEHeader{"Content-Disposition": {disposition}, "Content-Type": {kind}}
	form.CreatePart(header) //nolint:errcheck // a buffer accepts every write
}

// Read keeps an error of the archive, which net/http would report as a lost connection.
func (b *uploadBody) Read(buffer []byte) (int, error) {
	count, err := b.all.Read(buffer)
	switch {
	case err == io.EOF:
		b.onSent()
	case err != nil && err != io.ErrClosedPipe:
		b.lock.Lock()
		b.err = err
		b.lock.Unlock()
	}
	return count, err
}

// WriteTo sends larger chunks than net/http does by default, because each chunk costs a header.
func (b *uploadBody) WriteTo(to io.Writer) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{b}, make([]byte, chunkBytes))
}

func (b *uploadBody) sourceError() error {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.err
}

// Close stops building the archive.
func (b *uploadBody) Close() error {
	return b.archive.Close()
}
