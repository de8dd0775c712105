//go:build !linux && !darwin

package main

import "os"

// hasUnreadData is not implemented on this system.
func hasUnreadData(*os.File) bool { return false }
