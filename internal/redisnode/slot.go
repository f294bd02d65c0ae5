package redisnode

import "github.com/redis-kit/redlock/internal/node"

// slotCount is the number of hash slots of a Cluster.
const slotCount = 16384

// slot is the Cluster hash slot of a key: CRC16/XMODEM of its hash tag, or of the whole key, modulo 16384 (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
// rueidis computes it only while it builds a command, and panics there.
func slot(key string) uint16 {
	if tag, ok := node.HashTag(key); ok {
		key = tag
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % slotCount
}
