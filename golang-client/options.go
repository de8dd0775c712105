package pyexec

import "time"

// Option says how to run it. What is not given, the server decides.
type Option func(*settings)

type settings struct {
	metadata       metadata
	key            string
	onEvent        func(Event)
	lastExpression bool
	pythonVersion  string
}

// metadata is what the server reads beside the archive. Only what was given is sent.
type metadata struct {
	Entrypoint   string   `json:"entrypoint,omitempty"`
	DockerImage  string   `json:"docker_image,omitempty"`
	Requirements *string  `json:"requirements_txt,omitempty"`
	PreCommands  []string `json:"pre_commands,omitempty"`
	Stdin        *string  `json:"stdin,omitempty"`
	EnvVars      []string `json:"env_vars,omitempty"`
	ScriptArgs   []string `json:"script_args,omitempty"`
	OutputFiles  []string `json:"output_files,omitempty"`
	Config       limits   `json:"config,omitzero"`
}

type limits struct {
	TimeoutSeconds  *float64 `json:"timeout_seconds,omitempty"`
	NetworkDisabled *bool    `json:"network_disabled,omitempty"`
	MemoryMB        *int     `json:"memory_mb,omitempty"`
	DiskMB          *int     `json:"disk_mb,omitempty"`
	CPUShares       *int     `json:"cpu_shares,omitempty"`
	CPUs            *float64 `json:"cpus,omitempty"`
}

// evalBody is the body of an eval: the code, and the options beside it.
type evalBody struct {
	metadata
	Code           string     `json:"code,omitempty"`
	Files          []evalFile `json:"files,omitempty"`
	LastExpression bool       `json:"eval_last_expr"`
	PythonVersion  string     `json:"python_version,omitempty"`
}

type evalFile struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

func newSettings(options []Option) *settings {
	made := &settings{lastExpression: true}
	for _, option := range options {
		option(made)
	}
	return made
}

// WithEntrypoint names the file to run. Without it the server finds one.
func WithEntrypoint(path string) Option {
	return func(s *settings) { s.metadata.Entrypoint = path }
}

// WithImage names the Docker image to run in.
func WithImage(name string) Option {
	return func(s *settings) { s.metadata.DockerImage = name }
}

// WithRequirements has the text of a requirements.txt installed before the run.
func WithRequirements(text string) Option {
	return func(s *settings) { s.metadata.Requirements = &text }
}

// WithPreCommands has shell commands run as root before the program.
func WithPreCommands(commands ...string) Option {
	return func(s *settings) { s.metadata.PreCommands = append(s.metadata.PreCommands, commands...) }
}

// WithStdin is what the program reads from its standard input.
func WithStdin(text string) Option {
	return func(s *settings) { s.metadata.Stdin = &text }
}

// WithEnv sets an environment variable of the program. It may be given many times.
func WithEnv(name, value string) Option {
	return func(s *settings) { s.metadata.EnvVars = append(s.metadata.EnvVars, name+"="+value) }
}

// WithArgs gives the program arguments.
func WithArgs(args ...string) Option {
	return func(s *settings) { s.metadata.ScriptArgs = append(s.metadata.ScriptArgs, args...) }
}

// WithOutputFiles brings back the files below /work that these glob patterns match. [Client.Files] gives them.
func WithOutputFiles(patterns ...string) Option {
	return func(s *settings) { s.metadata.OutputFiles = append(s.metadata.OutputFiles, patterns...) }
}

// WithTimeout ends the run after this time. Setup does not count.
func WithTimeout(timeout time.Duration) Option {
	seconds := timeout.Seconds()
	return func(s *settings) { s.metadata.Config.TimeoutSeconds = &seconds }
}

// WithMemoryMB limits the program's memory, in MB.
func WithMemoryMB(megabytes int) Option {
	return func(s *settings) { s.metadata.Config.MemoryMB = &megabytes }
}

// WithDiskMB limits what the program may write below /work, in MB.
func WithDiskMB(megabytes int) Option {
	return func(s *settings) { s.metadata.Config.DiskMB = &megabytes }
}

// WithCPUShares weighs the program against others; 1024 is one's fair part.
func WithCPUShares(shares int) Option {
	return func(s *settings) { s.metadata.Config.CPUShares = &shares }
}

// WithCPUs limits how many cores the program may use.
func WithCPUs(cores float64) Option {
	return func(s *settings) { s.metadata.Config.CPUs = &cores }
}

// WithNetwork says whether the program may reach the network. By default it may not.
func WithNetwork(allowed bool) Option {
	disabled := !allowed
	return func(s *settings) { s.metadata.Config.NetworkDisabled = &disabled }
}

// WithIdempotencyKey makes the same request with the same key the same execution, however often it is sent.
// [Client.Submit] makes a key of its own where none is given.
func WithIdempotencyKey(key string) Option {
	return func(s *settings) { s.key = key }
}

// OnEvent has [Client.Run] call this with each event, in order, before the next one is read.
func OnEvent(call func(Event)) Option {
	return func(s *settings) { s.onEvent = call }
}

// WithLastExpression says whether [Client.Eval] gives back the last expression's repr; by default it does.
func WithLastExpression(wanted bool) Option {
	return func(s *settings) { s.lastExpression = wanted }
}

// WithPythonVersion, such as "3.12", picks an image for [Client.Eval].
func WithPythonVersion(version string) Option {
	return func(s *settings) { s.pythonVersion = version }
}
