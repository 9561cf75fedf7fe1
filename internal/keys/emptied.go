package keys

import (
	"context"
	"errors"
)

// Emptied reports whether the store lacks what the first start puts into it: it
// was emptied, or another one took its place.
func (s *Service) Emptied(ctx context.Context) (bool, error) {
	_, err := s.store.Setting(ctx, bootstrapSetting)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return false, err
}
