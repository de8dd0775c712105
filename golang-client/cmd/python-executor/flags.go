package main

import (
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pyexec "github.com/python-executor/golang-client"
)

// flags are the global flags, before or after the name of a command. Those of a run are for commands that run code.
type flags struct {
	server, token, image              string
	timeout, cpus, cpuSeconds         positiveFloat
	memory, disk, cpu                 positiveInt
	network, detached, quiet, verbose bool
}

// runFlags are the flags that a command that runs nothing rejects.
var runFlags = []string{"timeout", "memory", "disk", "cpu", "cpus", "cpu-seconds", "network", "image", "async"}

func (f *flags) addTo(set *pflag.FlagSet) {
	set.SortFlags = false
	set.StringVar(&f.server, "server", "", "Server `URL`. [env: PYEXEC_SERVER, default: http://localhost:8080]")
	set.StringVar(&f.token, "token", "", "Send `TOKEN` as the API token. [env: PYEXEC_TOKEN]")
	set.Var(&f.timeout, "timeout", "Kill the program after `N` seconds.")
	set.Var(&f.memory, "memory", "Memory limit in MiB.")
	set.Var(&f.disk, "disk", "Disk limit in MiB.")
	set.Var(&f.cpu, "cpu", "CPU weight relative to other runs (default 1024).")
	set.Var(&f.cpus, "cpus", "CPU limit in cores, for example 0.5.")
	set.Var(&f.cpuSeconds, "cpu-seconds", "Kill the program after `N` seconds of processor time.")
	set.BoolVar(&f.network, "network", false, "Allow network access.")
	set.StringVar(&f.image, "image", "", "Run in the Docker image `NAME`.")
	set.BoolVar(&f.detached, "async", false, "Submit, print the execution ID, and do not wait.")
	set.BoolVarP(&f.quiet, "quiet", "q", false, "Print only program output and errors.")
	set.BoolVarP(&f.verbose, "verbose", "v", false, "Print each step.")
}

// client creates a client for the server.
func (f *flags) client(command *cobra.Command) (*pyexec.Client, error) {
	server := firstOf(f.server, os.Getenv("PYEXEC_SERVER"), pyexec.DefaultURL)
	token := firstOf(f.token, os.Getenv("PYEXEC_TOKEN"))
	client, err := pyexec.New(server, pyexec.WithToken(token))
	var invalid *pyexec.ArgumentError
	if errors.As(err, &invalid) {
		return nil, usageErrorf(command, "%s", invalid)
	}
	return client, err
}

// options converts the flags to request options.
func (f *flags) options() []pyexec.Option {
	var options []pyexec.Option
	if f.timeout > 0 {
		options = append(options, pyexec.WithTimeout(f.timeout.duration()))
	}
	if f.memory > 0 {
		options = append(options, pyexec.WithMemoryMB(int(f.memory)))
	}
	if f.disk > 0 {
		options = append(options, pyexec.WithDiskMB(int(f.disk)))
	}
	if f.cpu > 0 {
		options = append(options, pyexec.WithCPUShares(int(f.cpu)))
	}
	if f.cpus > 0 {
		options = append(options, pyexec.WithCPUs(float64(f.cpus)))
	}
	if f.cpuSeconds > 0 {
		options = append(options, pyexec.WithCPUTime(f.cpuSeconds.duration()))
	}
	if f.network {
		options = append(options, pyexec.WithNetwork(true))
	}
	if f.image != "" {
		options = append(options, pyexec.WithImage(f.image))
	}
	return options
}

// firstOf returns the first value that is not empty.
func firstOf(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}

// units are what messages say about the unit of a flag.
var units = map[string]string{
	"timeout": ", in seconds", "cpu-seconds": ", in seconds", "idle-timeout": ", in seconds", "lifetime": ", in seconds",
	"memory": ", in MiB", "disk": ", in MiB",
}

// positiveInt is an integer flag; 0 means that it was not given.
type positiveInt int

func (p *positiveInt) Set(text string) error {
	number, err := strconv.Atoi(text)
	if err != nil || number < 1 {
		return errors.New("must be a positive integer")
	}
	*p = positiveInt(number)
	return nil
}

func (p *positiveInt) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.Itoa(int(*p))
}

func (p *positiveInt) Type() string { return "N" }

// positiveFloat is a number flag; 0 means that it was not given.
type positiveFloat float64

func (p *positiveFloat) Set(text string) error {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.ContainsAny(text, "xX_") || !(number > 0) || math.IsInf(number, 0) {
		return errors.New("must be a positive number")
	}
	*p = positiveFloat(number)
	return nil
}

// duration converts seconds to a duration. A number that is too large becomes a duration that no server allows.
func (p *positiveFloat) duration() time.Duration {
	seconds := min(float64(*p), math.MaxInt64/float64(2*time.Second))
	return time.Duration(seconds * float64(time.Second))
}

func (p *positiveFloat) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*p), 'g', -1, 64)
}

func (p *positiveFloat) Type() string { return "N" }
