package pyexec

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// Option is an option of a run. The server's defaults apply to options that are not given.
type Option func(*settings)

type settings struct {
	metadata       metadata
	key            string
	onEvent        func(Event)
	lastExpression *bool
	pythonVersion  string
	envNames       []string
	source         *Source
}

// metadata is the metadata of a request. Options that were not given are omitted.
type metadata struct {
	Entrypoint   string   `json:"entrypoint,omitempty"`
	DockerImage  string   `json:"docker_image,omitempty"`
	Requirements *string  `json:"requirements_txt,omitempty"`
	Inline       *bool    `json:"inline_requirements,omitempty"`
	PreCommands  []string `json:"pre_commands,omitempty"`
	Stdin        *string  `json:"stdin,omitempty"`
	EnvVars      []string `json:"env_vars,omitempty"`
	ScriptArgs   []string `json:"script_args,omitempty"`
	OutputFiles  []string `json:"output_files,omitempty"`
	Displays     bool     `json:"capture_displays,omitempty"`
	WebhookURL   string   `json:"webhook_url,omitempty"`
	IdleTimeout  *float64 `json:"idle_timeout_seconds,omitempty"`
	Lifetime     *float64 `json:"lifetime_seconds,omitempty"`
	Config       limits   `json:"config,omitzero"`
}

type limits struct {
	TimeoutSeconds  *float64 `json:"timeout_seconds,omitempty"`
	NetworkDisabled *bool    `json:"network_disabled,omitempty"`
	MemoryMB        *int     `json:"memory_mb,omitempty"`
	DiskMB          *int     `json:"disk_mb,omitempty"`
	CPUShares       *int     `json:"cpu_shares,omitempty"`
	CPUs            *float64 `json:"cpus,omitempty"`
	CPUSeconds      *float64 `json:"cpu_seconds,omitempty"`
}

// evalBody is the body of an eval request: the code and the options.
type evalBody struct {
	metadata
	Code           *string    `json:"code,omitempty"`
	Files          []evalFile `json:"files,omitempty"`
	LastExpression bool       `json:"eval_last_expr"`
	PythonVersion  string     `json:"python_version,omitempty"`
}

type evalFile struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

func newSettings(options []Option) *settings {
	s := &settings{}
	for _, option := range options {
		option(s)
	}
	return s
}

// check returns an ArgumentError that names the first option whose value no request can carry. Without it, invalid UTF-8
// would be replaced silently.
func (s *settings) check() error {
	texts := []struct {
		option string
		values []string
	}{
		{"WithEntrypoint", []string{s.metadata.Entrypoint}},
		{"WithImage", []string{s.metadata.DockerImage}},
		{"WithRequirements", optional(s.metadata.Requirements)},
		{"WithPreCommands", s.metadata.PreCommands},
		{"WithStdin", optional(s.metadata.Stdin)},
		{"WithEnv", s.metadata.EnvVars},
		{"WithArgs", s.metadata.ScriptArgs},
		{"WithOutputFiles", s.metadata.OutputFiles},
		{"WithWebhookURL", []string{s.metadata.WebhookURL}},
		{"WithPythonVersion", []string{s.pythonVersion}},
	}
	for _, text := range texts {
		if err := checkText(text.option, text.values...); err != nil {
			return err
		}
	}
	for _, name := range s.envNames {
		if name == "" || strings.Contains(name, "=") {
			return argumentError("WithEnv: '%s' is not the name of a variable: it is empty or contains '='", name)
		}
	}
	if cores := s.metadata.Config.CPUs; cores != nil && (math.IsNaN(*cores) || math.IsInf(*cores, 0)) {
		return argumentError("WithCPUs must be a finite number, not %g", *cores)
	}
	return nil
}

// checkFor returns an ArgumentError for the first option that would have no effect in this call.
func (s *settings) checkFor(call string) error {
	restricted := []struct {
		option   string
		isGiven  bool
		onlyCall string
	}{
		{"WithPythonVersion", s.pythonVersion != "", "Eval"},
		{"WithLastExpression", s.lastExpression != nil, "Eval"},
		{"OnEvent", s.onEvent != nil, "Run"},
		{"WithSource", s.source != nil, "OpenSession"},
	}
	for _, each := range restricted {
		if each.isGiven && each.onlyCall != call {
			return argumentError("%s has no effect in %s; it is an option of %s", each.option, call, each.onlyCall)
		}
	}
	return nil
}

func checkText(what string, values ...string) error {
	for _, value := range values {
		if !utf8.ValidString(value) {
			return argumentError("%s must be UTF-8 text; send binary data as a file of the source", what)
		}
	}
	return nil
}

func optional(text *string) []string {
	if text == nil {
		return nil
	}
	return []string{*text}
}

// WithEntrypoint sets the path of the file to run. Without it, the server chooses one.
func WithEntrypoint(path string) Option {
	return func(s *settings) { s.metadata.Entrypoint = path }
}

// WithImage sets the Docker image to run in.
func WithImage(name string) Option {
	return func(s *settings) { s.metadata.DockerImage = name }
}

// WithRequirements installs the packages of a requirements.txt, given as text, before the run.
func WithRequirements(text string) Option {
	return func(s *settings) { s.metadata.Requirements = &text }
}

// WithInlineRequirements controls whether the server reads the script's inline metadata, its "# /// script" block, if the
// request has no requirements (default: true). The server installs its dependencies, and chooses an image whose Python
// fits.
func WithInlineRequirements(wanted bool) Option {
	return func(s *settings) { s.metadata.Inline = &wanted }
}

// WithPreCommands runs shell commands as root during setup.
func WithPreCommands(commands ...string) Option {
	return func(s *settings) { s.metadata.PreCommands = append(s.metadata.PreCommands, commands...) }
}

// WithStdin sets the program's standard input.
func WithStdin(text string) Option {
	return func(s *settings) { s.metadata.Stdin = &text }
}

// WithEnv sets an environment variable of the program. It can be given more than once.
func WithEnv(name, value string) Option {
	return func(s *settings) {
		s.envNames = append(s.envNames, name)
		s.metadata.EnvVars = append(s.metadata.EnvVars, name+"="+value)
	}
}

// WithArgs sets the program's arguments.
func WithArgs(args ...string) Option {
	return func(s *settings) { s.metadata.ScriptArgs = append(s.metadata.ScriptArgs, args...) }
}

// WithOutputFiles selects the output files: the files under /work that match these glob patterns. A directory means all
// files in it. [Client.Files] downloads them, and Result.FilesSkipped says what is missing.
func WithOutputFiles(patterns ...string) Option {
	return func(s *settings) { s.metadata.OutputFiles = append(s.metadata.OutputFiles, patterns...) }
}

// WithDisplays returns what the program shows, such as figures, in Result.Displays. [Client.Eval] always does.
func WithDisplays() Option {
	return func(s *settings) { s.metadata.Displays = true }
}

// WithWebhookURL makes the server send the result to this URL after the end of the execution. The server's operator
// allows the hosts.
func WithWebhookURL(url string) Option {
	return func(s *settings) { s.metadata.WebhookURL = url }
}

// WithTimeout kills the program after this time. Setup does not count.
func WithTimeout(timeout time.Duration) Option {
	seconds := timeout.Seconds()
	return func(s *settings) { s.metadata.Config.TimeoutSeconds = &seconds }
}

// WithMemoryMB limits the program's memory, in MiB.
func WithMemoryMB(megabytes int) Option {
	return func(s *settings) { s.metadata.Config.MemoryMB = &megabytes }
}

// WithDiskMB limits the files in /work and /tmp together, in MiB.
func WithDiskMB(megabytes int) Option {
	return func(s *settings) { s.metadata.Config.DiskMB = &megabytes }
}

// WithCPUShares sets the CPU weight relative to other runs (default 1024).
func WithCPUShares(shares int) Option {
	return func(s *settings) { s.metadata.Config.CPUShares = &shares }
}

// WithCPUs limits the number of CPU cores.
func WithCPUs(cores float64) Option {
	return func(s *settings) { s.metadata.Config.CPUs = &cores }
}

// WithCPUTime kills the program after it has used this processor time, all processes and threads together.
func WithCPUTime(limit time.Duration) Option {
	seconds := limit.Seconds()
	return func(s *settings) { s.metadata.Config.CPUSeconds = &seconds }
}

// WithNetwork allows or denies network access (default: denied).
func WithNetwork(allowed bool) Option {
	disabled := !allowed
	return func(s *settings) { s.metadata.Config.NetworkDisabled = &disabled }
}

// WithIdempotencyKey sets the Idempotency-Key: repeating the same request with the same key returns the same
// execution. [Client.Submit] generates a key if none is given.
func WithIdempotencyKey(key string) Option {
	return func(s *settings) { s.key = key }
}

// WithIdleTimeout closes a session of [Client.OpenSession] after this time without a cell.
func WithIdleTimeout(timeout time.Duration) Option {
	seconds := timeout.Seconds()
	return func(s *settings) { s.metadata.IdleTimeout = &seconds }
}

// WithLifetime closes a session of [Client.OpenSession] after this time, whatever happens.
func WithLifetime(lifetime time.Duration) Option {
	seconds := lifetime.Seconds()
	return func(s *settings) { s.metadata.Lifetime = &seconds }
}

// WithSource puts files into the directory of a session of [Client.OpenSession].
func WithSource(source Source) Option {
	return func(s *settings) { s.source = &source }
}

// OnEvent makes [Client.Run] call this function with each event, in order, before it reads the next one.
func OnEvent(call func(Event)) Option {
	return func(s *settings) { s.onEvent = call }
}

// WithLastExpression controls whether [Client.Eval] returns the repr of the last expression (default: true).
func WithLastExpression(wanted bool) Option {
	return func(s *settings) { s.lastExpression = &wanted }
}

// WithPythonVersion selects an image for [Client.Eval] by Python version, for example "3.12".
func WithPythonVersion(version string) Option {
	return func(s *settings) { s.pythonVersion = version }
}
