package pyexec_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	pyexec "github.com/python-executor/golang-client"
)

// startServer starts a server that always sends this response, and returns its URL. A real program uses a real server.
func startServer(kind string, status int, body string) string {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Content-Type", kind)
		writer.WriteHeader(status)
		fmt.Fprint(writer, body)
	}))
	return server.URL
}

const events = `id: 1.0
event: submitted
data: {"execution_id": "exe_1", "type": "submitted"}

id: 2.3
event: output
data: {"stream": "stdout", "data": "NDIK"}

id: 3.3
event: finished
data: {"execution_id": "exe_1", "status": "completed", "exit_code": 0, "stdout": "42\n"}

`

func Example() {
	client, err := pyexec.New(startServer("text/event-stream", 200, events)) // http://localhost:8080
	if err != nil {
		panic(err)
	}
	defer client.Close()
	result, err := client.Run(context.Background(), pyexec.Text("print(6 * 7)"),
		pyexec.WithTimeout(10*time.Second), pyexec.WithMemoryMB(256))
	if err != nil {
		panic(err) // the server rejected the request, or cannot be reached
	}
	fmt.Print(result.Status, " ", *result.ExitCode, " ", result.Stdout)
	// Output: completed 0 42
}

func ExampleClient_Stream() {
	client, err := pyexec.New(startServer("text/event-stream", 200, events))
	if err != nil {
		panic(err)
	}
	for event, err := range client.Stream(context.Background(), pyexec.Text("print(6 * 7)")) {
		if err != nil {
			panic(err)
		}
		switch event := event.(type) {
		case pyexec.Lifecycle:
			fmt.Println("lifecycle", event.Type)
		case pyexec.Output:
			os.Stdout.Write(event.Data)
		case pyexec.Ended:
			fmt.Println("exit code", *event.Result.ExitCode)
		}
	}
	// Output:
	// lifecycle submitted
	// 42
	// exit code 0
}

func ExampleClient_Eval() {
	response := `{"execution_id": "exe_1", "status": "completed", "exit_code": 0, "result": "42"}`
	client, err := pyexec.New(startServer("application/json", 200, response))
	if err != nil {
		panic(err)
	}
	result, err := client.Eval(context.Background(), "6 * 7")
	if err != nil {
		panic(err)
	}
	fmt.Println(*result.Value)
	// Output: 42
}

func ExampleClient_Submit() {
	client, err := pyexec.New(startServer("application/json", 202, `{"execution_id": "exe_1"}`))
	if err != nil {
		panic(err)
	}
	id, err := client.Submit(context.Background(), pyexec.Files(map[string]string{
		"main.py":   "import helper\nprint(helper.ANSWER)",
		"helper.py": "ANSWER = 42",
	}))
	if err != nil {
		panic(err)
	}
	fmt.Println(id) // client.Wait(ctx, id) waits for the end
	// Output: exe_1
}

func ExampleError() {
	response := `{"error": "config.memory_mb must be at least 16, not 1", "code": "invalid_request", "field": "config.memory_mb"}`
	client, err := pyexec.New(startServer("application/json", 400, response))
	if err != nil {
		panic(err)
	}
	_, err = client.Run(context.Background(), pyexec.Text("x"), pyexec.WithMemoryMB(1))
	var rejected *pyexec.Error
	if errors.Is(err, pyexec.ErrInvalidRequest) && errors.As(err, &rejected) {
		fmt.Println(rejected.Status, rejected.Field)
	}
	// Output: 400 config.memory_mb
}
