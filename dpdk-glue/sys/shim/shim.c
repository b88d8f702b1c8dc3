#define _GNU_SOURCE
#include "shim.h"

uint16_t softrdma_receive_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t softrdma_transmit_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

uint16_t softrdma_transmit_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_prepare(port, queue, packets, count);
}

int softrdma_mbuf_allocate(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t count)
{
	/* Free buffers are single and referred to once; what else a frame needs is written when one begins. */
	return rte_mempool_get_bulk(pool, (void **)mbufs, count);
}

void softrdma_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

void softrdma_mbuf_free_bulk(struct rte_mbuf **mbufs, uint32_t count)
{
	struct rte_mempool *pool = NULL;
	uint32_t kept = 0;

	/* What goes back to one pool is gathered at the front of the list, which the caller has no more use for. */
	for (uint32_t i = 0; i < count; i++) {
		struct rte_mbuf *mbuf = mbufs[i];

		if (unlikely(mbuf->nb_segs != 1)) {
			rte_pktmbuf_free(mbuf);
			continue;
		}
		mbuf = rte_pktmbuf_prefree_seg(mbuf);
		if (unlikely(mbuf == NULL))
			continue;
		if (unlikely(mbuf->pool != pool)) {
			if (kept != 0)
				rte_mempool_put_bulk(pool, (void **)mbufs, kept);
			pool = mbuf->pool;
			kept = 0;
		}
		mbufs[kept++] = mbuf;
	}
	if (kept != 0)
		rte_mempool_put_bulk(pool, (void **)mbufs, kept);
}

int softrdma_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

void softrdma_mbuf_set_headers(struct rte_mbuf *mbuf, uint16_t l2, uint16_t l3, uint16_t l4, uint16_t segment_size,
			       uint64_t flags)
{
	mbuf->l2_len = l2;
	mbuf->l3_len = l3;
	mbuf->l4_len = l4;
	mbuf->tso_segsz = segment_size;
	mbuf->ol_flags |= flags;
}

uint32_t softrdma_mempool_available(const struct rte_mempool *pool)
{
	return rte_mempool_avail_count(pool);
}

int softrdma_errno(void)
{
	return rte_errno;
}

int softrdma_thread_has_lcore(void)
{
	return rte_lcore_id() != LCORE_ID_ANY;
}

static ssize_t write_to_sink(void *cookie, const char *text, size_t length)
{
	((softrdma_log_sink)cookie)((uint32_t)rte_log_cur_msg_loglevel(), text, length);
	return (ssize_t)length;
}

int softrdma_log_to(softrdma_log_sink sink)
{
	cookie_io_functions_t functions = { .write = write_to_sink };
	FILE *stream = fopencookie((void *)sink, "w", functions);

	if (stream == NULL)
		return -1;
	/* One write a line, so that each message arrives whole, with its own level. */
	setvbuf(stream, NULL, _IOLBF, BUFSIZ);
	if (rte_openlog_stream(stream) != 0) {
		fclose(stream);
		return -1;
	}
	return 0;
}
