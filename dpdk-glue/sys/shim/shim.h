/* What DPDK offers only as inline functions, macros or thread-local variables, as functions and constants. */
#ifndef SOFTRDMA_DPDK_SHIM_H
#define SOFTRDMA_DPDK_SHIM_H

#include <stdint.h>
#include <stdio.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_interrupts.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

static const uint64_t SOFTRDMA_RX_IP_CHECKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t SOFTRDMA_RX_IP_CHECKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t SOFTRDMA_RX_IP_CHECKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t SOFTRDMA_RX_IP_CHECKSUM_NONE = RTE_MBUF_F_RX_IP_CKSUM_NONE;
static const uint64_t SOFTRDMA_RX_L4_CHECKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t SOFTRDMA_RX_L4_CHECKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t SOFTRDMA_RX_L4_CHECKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t SOFTRDMA_RX_L4_CHECKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
static const uint64_t SOFTRDMA_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t SOFTRDMA_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t SOFTRDMA_TX_IP_CHECKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t SOFTRDMA_TX_TCP_CHECKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t SOFTRDMA_TX_TCP_SEGMENTATION = RTE_MBUF_F_TX_TCP_SEG;

static const uint64_t SOFTRDMA_RX_OFFLOAD_IPV4_CHECKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SOFTRDMA_RX_OFFLOAD_TCP_CHECKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t SOFTRDMA_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SOFTRDMA_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t SOFTRDMA_TX_OFFLOAD_IPV4_CHECKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SOFTRDMA_TX_OFFLOAD_TCP_CHECKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t SOFTRDMA_TX_OFFLOAD_TCP_SEGMENTATION = RTE_ETH_TX_OFFLOAD_TCP_TSO;
static const uint64_t SOFTRDMA_TX_OFFLOAD_CHAINS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t SOFTRDMA_RSS_TCP = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP;
static const uint32_t SOFTRDMA_MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t SOFTRDMA_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;

uint16_t softrdma_receive_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t softrdma_transmit_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t softrdma_transmit_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);

int softrdma_mbuf_allocate(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t count);
void softrdma_mbuf_free(struct rte_mbuf *mbuf);
void softrdma_mbuf_free_bulk(struct rte_mbuf **mbufs, uint32_t count);
int softrdma_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);
void softrdma_mbuf_set_headers(struct rte_mbuf *mbuf, uint16_t l2, uint16_t l3, uint16_t l4, uint16_t segment_size,
                               uint64_t flags);
uint32_t softrdma_mempool_available(const struct rte_mempool *pool);

int softrdma_errno(void);
int softrdma_thread_has_lcore(void);

/* Called with each piece of text that DPDK logs, and its level. */
typedef void (*softrdma_log_sink)(uint32_t level, const char *text, size_t length);
int softrdma_log_to(softrdma_log_sink sink);

#endif
