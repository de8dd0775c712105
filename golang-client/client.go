package pyexec

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultURL is where a server listens that was told nothing else.
const DefaultURL = "http://localhost:8080"

const connectTimeout = 10 * time.Second

// Client runs Python on a python-executor server. It may be used by many goroutines at once.
type Client struct {
	http   transport
	retry  Retry
	resume Retry
}

// ClientOption changes how a [Client] works.
type ClientOption func(*Client)

// New makes a client of the server at baseURL, which may carry a path; a slash at its end makes no difference.
// It fails with an [ArgumentError] if that is no address.
func New(baseURL string, options ...ClientOption) (*Client, error) {
	address, err := url.Parse(baseURL)
	if err != nil || (address.Scheme != "http" && address.Scheme != "https") || address.Hostname() == "" {
		return nil, argumentError("the server's address must look like http://host:8080, not '%s'", baseURL)
	}
	client := &Client{
		http:   transport{base: strings.TrimRight(baseURL, "/"), client: newHTTPClient()},
		retry:  Retry{Attempts: 3, First: 200 * time.Millisecond, Longest: 30 * time.Second},
		resume: Retry{Attempts: 10, First: 200 * time.Millisecond, Longest: 5 * time.Second},
	}
	for _, option := range options {
		option(client)
	}
	return client, nil
}

// WithToken sends this access token with every request.
func WithToken(token string) ClientOption {
	return func(client *Client) { client.http.token = token }
}

// WithHTTPClient uses this HTTP client, for proxies and certificates of one's own. It should neither follow
// redirects, which would make a POST a GET, nor have a timeout shorter than a run.
func WithHTTPClient(own *http.Client) ClientOption {
	return func(client *Client) { client.http.client = own }
}

// WithRetry says how often a request may be sent again that does no harm twice: reads, kills, and submissions,
// which carry an Idempotency-Key.
func WithRetry(retry Retry) ClientOption {
	return func(client *Client) { client.retry = retry }
}

// WithResume says how patiently event streams and waits that had begun and broke off are taken up again.
func WithResume(retry Retry) ClientOption {
	return func(client *Client) { client.resume = retry }
}

// Close closes the connections that are idle.
func (c *Client) Close() {
	c.http.client.CloseIdleConnections()
}

func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: connectTimeout,
			// Long polls each hold a connection: what is idle after many at once is worth keeping.
			MaxIdleConnsPerHost: 32,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true,              // logs are wanted byte for byte
			WriteBufferSize:     pieceBytes + 1024, // a chunk with its header and end goes out at once
			ReadBufferSize:      64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
