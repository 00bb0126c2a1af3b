package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Progress is told how far the download of a file has come; total is 0 when
// the server does not say.
type Progress func(file string, done, total int64)

var (
	hubName    = regexp.MustCompile(`^([\w][\w.-]*/[\w][\w.-]*)(?:@([\w][\w./-]*))?$`)
	commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// Resolve returns the local directory of a model. A directory is returned as
// it is. "org/name" or "org/name@revision" is fetched from the hub to its
// standard cache, which it shares with Python; a revision that is there whole
// is not fetched again, and if the hub cannot be reached the cached one is
// used.
//
// Environment: HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE (only the cache is read),
// HF_TOKEN, HF_ENDPOINT. progress may be nil.
func Resolve(ctx context.Context, nameOrPath string, progress Progress) (string, error) {
	info, err := os.Stat(nameOrPath)
	if err == nil {
		if !info.IsDir() && !isGGUF(nameOrPath) {
			return "", fmt.Errorf("%s: expected a model directory, found a file that is not .gguf either", nameOrPath)
		}
		return nameOrPath, nil
	}
	parts := hubName.FindStringSubmatch(nameOrPath)
	if parts == nil || strings.Contains(nameOrPath, "..") || strings.Contains(nameOrPath, "--") {
		return "", fmt.Errorf("%s: no such directory, and no hub name (org/name or org/name@revision) either", nameOrPath)
	}
	m := hubModel{name: parts[1], revision: parts[2]}
	if m.revision == "" {
		m.revision = "main"
	}
	if m.cache, err = hubCache(); err != nil {
		return "", err
	}
	cached, missing := m.cached()
	if offline() || missing == nil && commitHash.MatchString(m.revision) {
		if missing != nil {
			return "", fmt.Errorf("%s: no such directory, and HF_HUB_OFFLINE is set: %w", nameOrPath, missing)
		}
		return cached, nil
	}
	dir, err := m.fetch(ctx, progress)
	if err == nil {
		return dir, nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	var unreachable *url.Error
	reachable := !errors.As(err, &unreachable)
	if missing == nil && !reachable {
		return cached, nil
	}
	advice := "try again, or give a local folder"
	var status statusError
	switch {
	case errors.As(err, &status) && status.hidden():
		advice = "check name and revision, set HF_TOKEN if it is private, or give a local folder"
	case !reachable:
		err = fmt.Errorf("the hub cannot be reached (%w)", unreachable.Err)
	}
	if missing == nil {
		advice += ", or set HF_HUB_OFFLINE=1 to use the copy in the cache"
	}
	return "", fmt.Errorf("%s: no such directory, and fetching it failed: %w: %s", nameOrPath, err, advice)
}

// statusError is the hub's answer that is no success.
type statusError int

func (s statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the hub answers %d %s", int(s), http.StatusText(int(s))))
}

// hidden tells that what was asked for is not there or not for everyone, which
// the hub does not tell apart.
func (s statusError) hidden() bool {
	return s == http.StatusUnauthorized || s == http.StatusForbidden || s == http.StatusNotFound
}

func offline() bool {
	switch strings.ToUpper(os.Getenv("HF_HUB_OFFLINE")) {
	case "1", "TRUE", "YES", "ON":
		return true
	}
	return false
}

// hubCache is the cache's directory by the rules of Python's huggingface_hub.
func hubCache() (string, error) {
	dir, below := os.Getenv("HF_HUB_CACHE"), ""
	if dir == "" {
		dir, below = os.Getenv("HF_HOME"), "hub"
	}
	if dir == "" {
		dir, below = os.Getenv("XDG_CACHE_HOME"), "huggingface/hub"
	}
	if dir == "" {
		dir, below = "~", ".cache/huggingface/hub"
	}
	if rest, ok := strings.CutPrefix(dir, "~"); ok && (rest == "" || rest[0] == '/') {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = home + rest
	}
	return filepath.Abs(filepath.Join(dir, below))
}

// hubModel is one revision of a model on the hub, and its place in the cache.
type hubModel struct {
	name, revision, cache string
}

// dir is the model's directory in the cache: blobs/, refs/ and snapshots/.
func (m hubModel) dir() string {
	return filepath.Join(m.cache, "models--"+strings.ReplaceAll(m.name, "/", "--"))
}

func (m hubModel) ref() string { return filepath.Join(m.dir(), "refs", m.revision) }

func (m hubModel) snapshot(commit string) string { return filepath.Join(m.dir(), "snapshots", commit) }

// cached returns the revision's snapshot, or what is missing of it.
func (m hubModel) cached() (dir string, missing error) {
	commit := m.revision
	if !commitHash.MatchString(commit) {
		data, err := readSmallFile(m.ref())
		if err != nil {
			return "", fmt.Errorf("revision %s of %s is not in the cache %s", m.revision, m.name, m.cache)
		}
		commit = strings.TrimSpace(string(data))
		if !commitHash.MatchString(commit) {
			return "", fmt.Errorf("%s: expected a commit of 40 hexadecimal digits, found %q", m.ref(), shown(data))
		}
	}
	dir = m.snapshot(commit)
	if err := m.contained(commit); err != nil {
		return "", err
	}
	if !exists(configPath(dir)) {
		return "", fmt.Errorf("revision %s of %s is not whole in the cache: config.json is missing in %s", m.revision, m.name, dir)
	}
	weights, err := Open(dir) // also finds a file that was cut short
	if err != nil {
		return "", fmt.Errorf("revision %s of %s is not whole in the cache: %w", m.revision, m.name, err)
	}
	return dir, weights.Close()
}

// contained refuses links that lead out of the cache: what they point to is not the
// hub's. The model's folder itself may be one, as those have it who keep large models
// on another disk.
func (m hubModel) contained(commit string) error {
	var roots []string
	for _, dir := range []string{m.cache, m.dir()} {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			roots = append(roots, real)
		}
	}
	for _, part := range []string{"refs", "blobs", "snapshots", filepath.Join("snapshots", commit)} {
		err := filepath.WalkDir(filepath.Join(m.dir(), part), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist): // yet
				return nil
			case err != nil:
				return err
			case entry.IsDir() && part == "snapshots" && filepath.Base(path) != part:
				return fs.SkipDir // another revision
			case entry.Type()&fs.ModeSymlink == 0:
				return nil
			}
			real, err := filepath.EvalSymlinks(path)
			if err != nil {
				return nil // to nothing: it is made anew
			}
			info, err := os.Stat(real)
			if err == nil && info.IsDir() || !slices.ContainsFunc(roots, func(root string) bool { return strings.HasPrefix(real, root+string(filepath.Separator)) }) {
				return fmt.Errorf("%s: expected a link to a file in the cache, found one to %s", path, real)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
