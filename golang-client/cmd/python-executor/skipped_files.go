package main

import (
	"fmt"

	pyexec "github.com/python-executor/golang-client"
)

const skippedNotesMax = 10

var skipReasons = map[string]string{
	"not_a_file":    "not a regular file",
	"link_outside":  "the link leads out of /work",
	"link_broken":   "the link leads nowhere",
	"link_loop":     "the link leads to a directory that contains it",
	"setup_file":    "a file of the setup",
	"invalid_name":  "the path is too long or is not valid text",
	"too_large":     "the size limit is exceeded",
	"too_many":      "the limit on the number of files is exceeded",
	"too_deep":      "the directory is nested too deeply",
	"timeout":       "collecting the files took too long",
	"unreadable":    "reading it failed",
	"not_collected": "the server could not collect the files",
}

// printSkippedFiles prints a message for each output file that is missing, up to a limit.
func printSkippedFiles(result *pyexec.Result, console *console) {
	for _, skipped := range result.FilesSkipped[:min(len(result.FilesSkipped), skippedNotesMax)] {
		console.info("%s", skippedNote(skipped))
	}
	if len(result.FilesSkipped) > skippedNotesMax || result.FilesSkippedTruncated {
		console.info("more output files were skipped")
	}
	if result.FilesTruncated && len(result.FilesSkipped) == 0 { // a server of an earlier version gives no reasons
		console.info("some output files are missing: they exceed the size limit, or could not be collected")
	}
}

func skippedNote(skipped pyexec.SkippedFile) string {
	reason := firstOf(skipReasons[skipped.Reason], skipped.Reason)
	switch {
	case skipped.Pattern == "":
		return fmt.Sprintf("skipped '%s': %s", skipped.Path, reason)
	case skipped.Reason == "no_match":
		return fmt.Sprintf("no file matches '%s'", skipped.Pattern)
	default:
		return fmt.Sprintf("files are missing for '%s': %s", skipped.Pattern, reason)
	}
}
