package pyexec

import (
	"context"
	"io"
)

// FileList contains files of a session.
type FileList struct {
	Files     []OutputFile `json:"files"`
	Truncated bool         `json:"truncated"` // there are more than the server lists
}

// Upload writes a file of the session. The path is relative to /work. The content is sent as it is read.
func (s *Session) Upload(ctx context.Context, path string, content io.Reader) error {
	req, err := s.fileRequest("PUT", path, Retry{})
	if err != nil {
		return err
	}
	req.content = content
	return s.done(ctx, req)
}

// Download returns the contents of a file of the session. The caller must close it.
func (s *Session) Download(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := s.fileRequest("GET", path, s.client.retry)
	if err != nil {
		return nil, err
	}
	return s.client.body(ctx, req)
}

// Delete deletes a file of the session.
func (s *Session) Delete(ctx context.Context, path string) error {
	req, err := s.fileRequest("DELETE", path, Retry{})
	if err != nil {
		return err
	}
	return s.done(ctx, req)
}

// List returns the files of the session that match a pattern such as *.csv. An empty pattern means all files.
func (s *Session) List(ctx context.Context, glob string) (*FileList, error) {
	req, err := s.filesRequest(glob)
	if err != nil {
		return nil, err
	}
	var list FileList
	body, err := s.client.http.json(ctx, req, &list)
	if err == nil && list.Files == nil {
		err = answerError("invalid response from the server: files is missing: %s", excerpt(body))
	}
	return &list, err
}

// DownloadTar returns the files that match a pattern as an uncompressed tar. The caller must close it.
func (s *Session) DownloadTar(ctx context.Context, glob string) (io.ReadCloser, error) {
	req, err := s.filesRequest(glob)
	if err != nil {
		return nil, err
	}
	req.header["Accept"] = "application/x-tar"
	return s.client.body(ctx, req)
}

func (s *Session) filesRequest(glob string) (request, error) {
	req, err := sessionRequest("GET", s.ID, "/files", s.client.retry)
	if err == nil && glob != "" {
		req.query["glob"] = glob
	}
	return req, err
}

func (s *Session) fileRequest(method, path string, retry Retry) (request, error) {
	escaped, err := filePath(path)
	if err != nil {
		return request{}, err
	}
	return sessionRequest(method, s.ID, "/files/"+escaped, retry)
}

func (s *Session) done(ctx context.Context, req request) error {
	response, err := s.client.http.open(ctx, req)
	if err != nil {
		return err
	}
	return response.Close()
}
