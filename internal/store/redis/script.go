package redis

import (
	_ "embed"

	goredis "github.com/redis/go-redis/v9"
)

// The scripts are sent whole once and by their digest from then on; a Redis that
// has forgotten them, after a restart or a failover, is sent them again.
var (
	//go:embed lua/apply.lua
	applySource string
	//go:embed lua/lookup.lua
	lookupSource string
	//go:embed lua/find.lua
	findSource string
	//go:embed lua/list.lua
	listSource string
	//go:embed lua/schema.lua
	schemaSource string
	//go:embed lua/replica.lua
	replicaSource string

	applyScript   = goredis.NewScript(applySource)
	lookupScript  = goredis.NewScript(lookupSource)
	findScript    = goredis.NewScript(findSource)
	listScript    = goredis.NewScript(listSource)
	schemaScript  = goredis.NewScript(schemaSource)
	replicaScript = goredis.NewScript(replicaSource)
)

// All keys of the control plane carry one hash tag: one slot of a cluster, so
// that one script can make a whole change.
const tag = "kg:{kg}:"

const (
	schemaKey        = tag + "schema"
	sequenceKey      = tag + "seq"
	changesKey       = tag + "changes"
	auditKey         = tag + "audit"
	replicasKey      = tag + "replicas"
	probeKey         = tag + "probe"
	organizationKey  = tag + "organization:" // + id
	spaceKey         = tag + "space:"        // + id
	accountKey       = tag + "account:"      // + id
	keyKey           = tag + "key:"          // + id
	settingKey       = tag + "setting:"      // + name
	secretKey        = tag + "secret:"       // + hash
	slugKey          = tag + "slug:"         // + slug, or + organization + ":" + slug
	grantsKey        = tag + "grants:"       // + account
	organizationsKey = tag + "organizations"
	spacesKey        = tag + "spaces:"   // + organization
	accountsKey      = tag + "accounts:" // + organization
	keysKey          = tag + "keys"      // + ":" + organization
	namesKey         = tag + "names"     // + ":" + organization
)
