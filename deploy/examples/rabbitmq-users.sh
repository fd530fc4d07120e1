#!/bin/sh
# Who may do what on RabbitMQ: only chat-service may publish events, as what is published as the next
# number of a channel is believed. Once, on a running node, as root, with the passwords in the
# environment:
#   CHAT_SERVICE_PASSWORD=… BROADCAST_SSE_PASSWORD=… sh rabbitmq-users.sh
# MQTT topics are routing keys here: chat/<uuid> is chat.<uuid>.
set -eu

rabbitmqctl add_user chat-service "$CHAT_SERVICE_PASSWORD"
rabbitmqctl set_permissions chat-service '^$' '^amq\.topic$' '^$'
rabbitmqctl set_topic_permissions chat-service amq.topic '^chat\.[^.]+$' '^$'

rabbitmqctl add_user broadcast-sse "$BROADCAST_SSE_PASSWORD"
rabbitmqctl set_permissions broadcast-sse \
    '^mqtt-subscription-' '^mqtt-subscription-' '^(mqtt-subscription-.*|amq\.topic)$'
rabbitmqctl set_topic_permissions broadcast-sse amq.topic '^$' '^chat\.[^.]+$'

# It may do everything, and everybody knows its password.
rabbitmqctl delete_user guest
