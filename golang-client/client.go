package pyexec

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// DefaultURL is the URL of a server with default settings on this machine.
const DefaultURL = "http://localhost:8080"

const connectTimeout = 10 * time.Second

// Client runs Python code on a python-executor server. It is safe for concurrent use.
type Client struct {
	http   transport
	retry  Retry
	resume Retry
}

// ClientOption configures a [Client].
type ClientOption func(*Client)

// New creates a client for the server at baseURL. The URL may contain a path; a trailing slash is ignored. New
// fails with an [ArgumentError] if the URL or the token is invalid.
func New(baseURL string, options ...ClientOption) (*Client, error) {
	if !isServerURL(baseURL) {
		return nil, argumentError("invalid server URL '%s': it must look like http://host:8080", baseURL)
	}
	client := &Client{
		http:   transport{base: strings.TrimRight(baseURL, "/"), client: newHTTPClient()},
		retry:  Retry{Attempts: 3, First: 200 * time.Millisecond, Longest: 30 * time.Second},
		resume: Retry{Attempts: 10, First: 200 * time.Millisecond, Longest: 5 * time.Second},
	}
	for _, option := range options {
		option(client)
	}
	if strings.ContainsFunc(client.http.token, isControl) {
		return nil, argumentError("invalid token: it contains a line break or another control character")
	}
	return client, nil
}

// isServerURL reports whether requests can be sent to paths below this URL.
func isServerURL(address string) bool {
	parsed, err := url.Parse(address)
	if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Hostname() == "" {
		return false
	}
	if port := parsed.Port(); port != "" {
		if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			return false
		}
	}
	return parsed.RawQuery == "" && parsed.Fragment == "" && !strings.ContainsFunc(address, unicode.IsSpace)
}

// isControl reports whether a header cannot contain the character.
func isControl(letter rune) bool {
	return letter < ' ' || letter == 0x7f
}

// WithToken sends an API token with every request.
func WithToken(token string) ClientOption {
	return func(client *Client) { client.http.token = token }
}

// WithHTTPClient uses an HTTP client of your own, for example for proxies and certificates. It should not follow
// redirects, which would turn a POST into a GET, and it needs a timeout longer than any run.
func WithHTTPClient(httpClient *http.Client) ClientOption {
	return func(client *Client) { client.http.client = httpClient }
}

// WithRetry sets the retry policy for requests that are safe to repeat: reads, kills, and submissions with an
// Idempotency-Key.
func WithRetry(retry Retry) ClientOption {
	return func(client *Client) { client.retry = retry }
}

// WithResume sets the retry policy for event streams and waits whose connection broke after they had started.
func WithResume(retry Retry) ClientOption {
	return func(client *Client) { client.resume = retry }
}

// Close closes all idle connections.
func (c *Client) Close() {
	c.http.client.CloseIdleConnections()
}

func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: connectTimeout,
			// Each long poll holds a connection, so keep many of them for reuse.
			MaxIdleConnsPerHost: 32,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true,              // logs must arrive unchanged
			WriteBufferSize:     chunkBytes + 1024, // room for one chunk with its header and trailer
			ReadBufferSize:      64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
