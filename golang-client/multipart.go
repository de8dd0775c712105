package pyexec

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/textproto"
	"sync"
)

// uploadBody is one sending of code: metadata first, so that the server can stream the archive that follows.
// It is read as it is sent, and never held as a whole.
type uploadBody struct {
	contentType string
	archive     io.ReadCloser
	all         io.Reader
	sent        func() // called when everything has been read

	lock    sync.Mutex
	problem error
}

func newUploadBody(from *upload, sent func()) (*uploadBody, error) {
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
	body := &uploadBody{contentType: form.FormDataContentType(), archive: archive, sent: sent}
	body.all = io.MultiReader(&head, archive, bytes.NewReader([]byte(tail)))
	return body, nil
}

func part(form *multipart.Writer, disposition, kind string) {
	header := textproto.MIMEHeader{"Content-Disposition": {disposition}, "Content-Type": {kind}}
	form.CreatePart(header) //nolint:errcheck // a buffer takes everything
}

// Read keeps the archive's own failure: HTTP reports it as a broken connection.
func (b *uploadBody) Read(buffer []byte) (int, error) {
	count, err := b.all.Read(buffer)
	switch {
	case err == io.EOF:
		b.sent()
	case err != nil && err != io.ErrClosedPipe:
		b.lock.Lock()
		b.problem = err
		b.lock.Unlock()
	}
	return count, err
}

// WriteTo sends it in larger pieces than HTTP would take by itself: each is a chunk with a header of its own.
func (b *uploadBody) WriteTo(to io.Writer) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{b}, make([]byte, pieceBytes))
}

func (b *uploadBody) failed() error {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.problem
}

// Close stops whatever makes the archive.
func (b *uploadBody) Close() error {
	return b.archive.Close()
}
