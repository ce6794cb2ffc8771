FROM node:20 AS base
WORKDIR /app
COPY --link package.json package-lock.json ./
FROM base AS development
RUN npm ci
CMD ["npm", "run", "dev"]
FROM base AS production
ENV NODE_ENV=production
RUN npm ci --omit=dev
COPY --chown=node:node --chmod=0555 src/ ./src/
USER node
HEALTHCHECK --interval=30s --timeout=3s --start-period=1m --start-interval=2s --retries=4 CMD wget -qO- localhost:3000 || exit 1
CMD ["node", "src/index.js"]
